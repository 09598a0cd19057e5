"""One host, two of its users: together they run no more jobs at a time than it has slots."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.hosts.farm import Farm, TestHost
from tests.support.hosts.home import Home
from tests.support.people.laptop import Laptop

LOG = "/tmp/turns"
JOBS = 3
QUEUE = "/var/lib/dstack-slots"


@pytest.fixture
def host(farm: Farm) -> TestHost:
    """A host with a second account, bob, who has the same key as alice."""
    made = farm.start()[0]
    made.run(["useradd", "--create-home", "--shell", "/bin/bash", "--password", "*", "bob"])
    made.run(["cp", "-r", "/home/alice/.ssh", "/home/bob/.ssh"])
    made.run(["chown", "-R", "bob:bob", "/home/bob/.ssh"])
    made.run(["sh", "-c", f"touch {LOG} && chmod 666 {LOG}"])
    made.run(["install", "-d", "-m", "1777", QUEUE])
    made.run(["install", "-m", "0444", "/dev/null", f"{QUEUE}/lock"])
    return made


def laptop_of(folder: Path, home: Home, host: TestHost, user: str) -> Laptop:
    laptop = Laptop(folder / user, home=home.path)
    jobs = "\n".join(
        f"  - name: turn-{number}\n    commands:\n"
        f"      - echo begin {user} {number} >> {LOG}\n      - sleep 0.3\n      - echo end {user} {number} >> {LOG}"
        for number in range(JOBS)
    )
    needed = ", ".join(f"turn-{number}" for number in range(JOBS))
    laptop.write(
        {
            ".dstack/workflows.yaml": f"workflows:\n{jobs}\n"
            f"  - name: all\n    commands: ['true']\n    depends-on: [{needed}]\n",
            ".dstack/hosts.yaml": f"hosts:\n  shared: {{address: {host.address}, port: {host.port}, user: {user}, "
            f"identity-file: {home.key.file}, slots: 1}}\n",
        }
    )
    laptop.commit()
    return laptop


def test_two_users_of_a_host_share_its_slot(host: TestHost, ssh_home: Home, tmp_path: Path) -> None:
    ssh_home.trust(host)
    laptops = [laptop_of(tmp_path, ssh_home, host, user) for user in ("alice", "bob")]
    processes = [laptop.start("run", "all") for laptop in laptops]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err
    turns = host.run(["cat", LOG]).decode().splitlines()
    assert len(turns) == 4 * JOBS
    for begin, end in zip(turns[::2], turns[1::2], strict=True):
        assert (begin.split()[0], end.split()[0]) == ("begin", "end"), turns
        assert begin.split()[1:] == end.split()[1:], turns
    assert {line.split()[1] for line in turns} == {"alice", "bob"}
