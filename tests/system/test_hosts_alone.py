"""Hosts that reach the bucket work by themselves: whoever started the run is not needed any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.hosts.farm import Farm, TestHost
from tests.system.hosts.home import Home
from tests.system.hosts.waiting import until
from tests.system.laptop import Laptop
from tests.system.pipeline import FILES, GATE, entry, marks, write_inventory

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """A folder that hosts and laptops share."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    return folder


@pytest.fixture
def hosts(farm: Farm, bucket: Path) -> list[TestHost]:
    return farm.start(3, shared=bucket)


@pytest.fixture
def laptop(hosts: list[TestHost], bucket: Path, ssh_home: Home, tmp_path: Path) -> Laptop:
    made = Laptop(tmp_path, home=ssh_home.path)
    ssh_home.trust(*hosts)
    key = ssh_home.key.file
    write_inventory(made, {f"gpu-{number}": entry(host, key) for number, host in enumerate(hosts, 1)})
    (made.home / ".dstack/config.yaml").write_text(f"bucket: {bucket}\n")
    made.write(FILES)
    made.commit()
    return made


def coordinators(host: TestHost) -> list[str]:
    """Whatever of dstack is at work on a host, as /proc shows it."""
    return [line for line in host.processes() if "python3 -I -S" in line]


def open_gates(hosts: list[TestHost]) -> None:
    for host in hosts:
        host.run(["touch", GATE], user="alice")


def test_a_run_that_was_left_goes_on_without_a_process_of_this_machine(laptop: Laptop, hosts: list[TestHost]) -> None:
    told = laptop.dstack("run", "-d", "evaluate").stdout
    name = told.split()[0]
    assert "gpu-1, gpu-2, gpu-3 by itself: this machine may be shut" in told
    assert not list((laptop.home / ".dstack/coordinators").glob("*")), "nothing was started here"
    open_gates(hosts)
    until("the run is final", lambda: laptop.show(name)["status"] != "running", seconds=90)
    assert [job["status"] for job in laptop.show(name)["jobs"]] == ["succeeded"] * 4
    assert sorted(marks(hosts)) == ["baseline", "evaluate", "prepare", "train"]
    until("the coordinators have ended", lambda: not any(coordinators(host) for host in hosts), seconds=30)
    assert "picture" in laptop.dstack("logs", name, "evaluate").stdout
