"""The laptop is gone: its CLI ran in a container that was removed as soon as `run -d` had returned.

DSTACK_ROUNDS sets how often; the suite tries it once on each kind of bucket, a soak 20 times.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import dstack
from tests.support.buckets.object_stores import ministack
from tests.support.hosts.farm import Farm, TestHost
from tests.support.hosts.home import Home
from tests.support.people.laptop import Laptop
from tests.support.people.pipeline import GATE, MARKS, entry, marks, write_inventory
from tests.support.waiting import until

ROUNDS = min(20, int(os.environ.get("DSTACK_ROUNDS", "1")))
pytestmark = pytest.mark.timeout(900)

SITE = Path(pytest.__file__).parents[1]
PACKAGE = Path(dstack.__file__).parents[1]
HOST_PYTHON = (3, 11)
"""Of the image of the test hosts, which runs the CLI with the libraries of this environment."""

WORKFLOWS = f"""
workflows:
  - name: collect
    commands:
      - echo collect >> {MARKS}
      - while [ ! -e {GATE} ]; do sleep 0.05; done
      - seq 1 2000 > numbers.txt
    artifacts: [numbers.txt]
  - name: even
    depends-on: [collect]
    commands:
      - echo even >> {MARKS}
      - sleep 0.5
      - awk '$1 % 2 == 0' numbers.txt > even.txt
    artifacts: [even.txt]
  - name: odd
    depends-on: [collect]
    commands:
      - echo odd >> {MARKS}
      - awk '$1 % 2 == 1' numbers.txt > odd.txt
    artifacts: [odd.txt]
  - name: total
    depends-on: [even, odd]
    commands:
      - echo total >> {MARKS}
      - echo $(( $(cat even.txt odd.txt | paste -sd+ -) )) > sum.txt
      - echo $(( $(cat sum.txt) * FACTOR )) > total.txt
    env: [FACTOR]
    artifacts: [total.txt]
  - name: report
    depends-on: [total, even]
    commands:
      - echo report >> {MARKS}
      - echo "the total is $(cat total.txt)" | tee report.txt
      - sha256sum even.txt >> report.txt
    artifacts: [report.txt]
"""
STEPS = ["collect", "even", "odd", "report", "total"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """Three hosts, a bucket that they share, and a person whose laptop is at first this machine."""

    hosts: list[TestHost]
    laptop: Laptop


@pytest.fixture(params=["folder", "s3"])
def lab(request: pytest.FixtureRequest, farm: Farm, ssh_home: Home, tmp_path: Path) -> Lab:
    laptop = Laptop(tmp_path, home=ssh_home.path)
    laptop.environment["FACTOR"] = "3"
    if request.param == "folder":
        bucket = tmp_path / "bucket"
        bucket.mkdir()
        hosts = farm.start(3, shared=bucket)
        url, extra = str(bucket), {}
    else:
        hosts = farm.start(3)
        store = ministack(farm.gateway())
        url, extra = store.make(f"gone-{farm.id}") + "/lab", {"forward-credentials": "true"}
        laptop.environment |= store.environment
    ssh_home.trust(*hosts)
    key = ssh_home.key.file
    write_inventory(laptop, {f"gpu-{number}": entry(host, key, more=extra) for number, host in enumerate(hosts, 1)})
    (laptop.home / ".dstack/config.yaml").write_text(f"bucket: {url}\n")
    laptop.write({".dstack/workflows.yaml": WORKFLOWS})
    laptop.commit()
    return Lab(hosts=hosts, laptop=laptop)


def leave(farm: Farm, laptop: Laptop, key: Path, *arguments: str) -> str:
    """`dstack run -d` in a container that is removed at once -> what it printed."""
    folders = {str(SITE): "ro", str(PACKAGE): "ro", str(laptop.root.parent): "rw", str(key.parent): "ro"}
    environment = {
        **{name: value for name, value in laptop.environment.items() if name.startswith(("AWS_", "DSTACK_", "FACTOR"))},
        "HOME": str(laptop.home),
        "PYTHONPATH": f"{PACKAGE}:{SITE}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    container: Any = farm.bare(folders, environment)
    try:
        command = ["python3", "-P", "-m", "dstack", "run", "-d", *arguments]
        code, output = container.exec_run(command, workdir=str(laptop.root))
    finally:
        container.remove(force=True)
    told: str = output.decode()
    assert code == 0, told
    return told


def pulled(laptop: Laptop, run: str, folder: Path) -> dict[str, bytes]:
    """All artifacts of a run."""
    shutil.rmtree(folder, ignore_errors=True)
    for step in STEPS:
        laptop.dstack("artifacts", "pull", run, step, "-o", str(folder))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.skipif(sys.version_info[:2] != HOST_PYTHON, reason="the image's Python cannot load these libraries")
def test_five_steps_complete_on_three_hosts_after_the_laptop_is_gone(
    farm: Farm, lab: Lab, ssh_home: Home, tmp_path: Path
) -> None:
    laptop = lab.laptop
    for host in lab.hosts:
        host.run(["touch", GATE])
    attended = laptop.run_json("report")
    assert attended["status"] == "succeeded"
    wanted = pulled(laptop, attended["run"], tmp_path / "attended")
    assert wanted["total.txt"] == b"6003000\n"
    for number in range(ROUNDS):
        for host in lab.hosts:
            host.run(["rm", "-f", MARKS, GATE])
        told = leave(farm, laptop, ssh_home.key.file, "report", *(f"--rerun={step}" for step in STEPS))
        name = told.split()[0]
        assert "this machine may be shut" in told
        for host in lab.hosts:
            host.run(["touch", GATE])
        until(f"run {number} is final", lambda name=name: laptop.show(name)["status"] != "running", seconds=120)  # type: ignore[misc]
        shown = laptop.show(name)
        assert [job["status"] for job in shown["jobs"]] == ["succeeded"] * 5
        assert sorted(marks(lab.hosts)) == STEPS, "each step started once"
        assert pulled(laptop, name, tmp_path / "detached") == wanted
