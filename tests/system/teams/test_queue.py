"""Two hosts of four GPUs, three accounts, forty jobs, and a killer: no GPU is ever given twice.

The judge is a lock of the test's own for each GPU, which a job takes and its processes keep for as long as they live.
"""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import pytest

from tests.support.hosts.farm import Farm, TestHost
from tests.support.hosts.home import Home
from tests.support.people.laptop import Laptop
from tests.support.waiting import until

QUEUE = "/var/lib/dstack-slots"
JUDGE = "/var/tmp/judge"
USERS = ("alice", "bob", "carol")
JOBS = 40
KILLS = int(os.environ.get("DSTACK_KILLS", "60"))
"""The suite kills some, a soak 200."""
SMI = b"""#!/bin/sh
case "$*" in
  *query-gpu*) for i in 0 1 2 3; do echo "$i, GPU-$i, NVIDIA A100, 40960"; done ;;
esac
"""
JOB = f"""
      - |
        number={JUDGE}
        for gpu in ${{CUDA_VISIBLE_DEVICES//,/ }}; do
          exec {{fd}}<>{JUDGE}/$gpu
          flock -n $fd || echo "TWICE $gpu" >> {JUDGE}/marks
        done
        echo "ran $job_id" >> {JUDGE}/marks
        setsid sleep 0.3 &
        sleep 0.3
"""
VICTIMS = "pgrep -u alice,bob,carol -f 'sys.stdin.buffer|dstack|sleep 0.3' || true"


@pytest.fixture
def hosts(farm: Farm) -> list[TestHost]:
    made = farm.start(2)
    for host in made:
        for user in USERS[1:]:
            host.run(["useradd", "--create-home", "--shell", "/bin/bash", "--password", "*", user])
            host.run(["cp", "-r", "/home/alice/.ssh", f"/home/{user}/.ssh"])
            host.run(["chown", "-R", f"{user}:{user}", f"/home/{user}/.ssh"])
        host.write("/usr/bin/nvidia-smi", SMI, mode=0o755)
        host.run(["install", "-d", "-m", "1777", QUEUE])
        host.run(["install", "-m", "0444", "/dev/null", f"{QUEUE}/lock"])
        host.run(["sh", "-c", f"mkdir {JUDGE} && touch {JUDGE}/marks {JUDGE}/0 {JUDGE}/1 {JUDGE}/2 {JUDGE}/3"])
        host.run(["sh", "-c", f"chmod 777 {JUDGE} && chmod 666 {JUDGE}/*"])
    return made


def laptop_of(folder: Path, home: Home, hosts: list[TestHost], user: str, jobs: int) -> Laptop:
    laptop = Laptop(folder / user, home=home.path)
    names = [f"job-{number}" for number in range(jobs)]
    retry = "retry: {attempts: 60, on: [failed, lost]}"
    body = "".join(
        f"  - name: {name}\n    {retry}\n    env: {{NUMBER: '{name}'}}\n"
        f"    resources: {{gpu: {1 + number % 2}}}\n    commands:{JOB}"
        for number, name in enumerate(names)
    )
    inventory = "".join(
        f"  gpu-{number}: {{address: {host.address}, port: {host.port}, user: {user}, "
        f"identity-file: {home.key.file}}}\n"
        for number, host in enumerate(hosts)
    )
    laptop.write(
        {
            ".dstack/workflows.yaml": f"workflows:\n{body}  - name: all\n    commands: ['true']\n    {retry}\n"
            f"    depends-on: [{', '.join(names)}]\n",
            ".dstack/hosts.yaml": f"hosts:\n{inventory}",
            ".dstack/config.yaml": f"project: {user}\n",
        }
    )
    laptop.commit()
    return laptop


def killer(hosts: list[TestHost], over: threading.Event, killed: list[str]) -> None:
    chance = random.Random(7)
    while len(killed) < KILLS and not over.is_set():
        host = chance.choice(hosts)
        pids = host.exec(["sh", "-c", VICTIMS]).output.decode().split()
        if pids:
            pid = chance.choice(pids)
            host.exec(["kill", "-9", pid])
            killed.append(pid)


def marks(hosts: list[TestHost]) -> list[str]:
    return [line for host in hosts for line in host.run(["cat", f"{JUDGE}/marks"]).decode().splitlines()]


def locked(host: TestHost) -> bool:
    """Whether somebody still has a ticket."""
    script = f"for ticket in {QUEUE}/0*; do [ ! -e $ticket ] || flock -n -s $ticket true || exit 1; done"
    return host.exec(["sh", "-c", script]).code != 0


def submitted(laptop: Laptop) -> str:
    """The name of a run; where the runners of all hosts are killed at the same moment, there is none yet."""
    done = laptop.dstack("run", "all", "-d", code=None)
    for _ in range(9):
        if done.returncode != 3:
            break
        done = laptop.dstack("run", "all", "-d", code=None)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[0]


def ended(laptop: Laptop, run: str) -> bool:
    return bool(laptop.show(run)["status"] != "running")


def state(laptops: list[Laptop], hosts: list[TestHost]) -> str:
    """What can be seen of a run that is stuck."""
    logs = [path for laptop in laptops for path in (laptop.home / ".dstack/coordinators").glob("*.log")]
    told = [f"{path.name}:\n{path.read_text()[-3000:]}" for path in dict.fromkeys(logs)]
    for host in hosts:
        told.append(host.exec(["ps", "-eo", "pid,ppid,user,etimes,args"]).output.decode()[-3000:])
        told.append(host.exec(["sh", "-c", f"cd {QUEUE}; for t in 0*; do echo $t; cat $t; done"]).output.decode())
    return "\n".join(told)


@pytest.mark.docker
def test_no_gpu_is_given_to_a_second_job_while_a_process_of_the_first_lives(
    hosts: list[TestHost], ssh_home: Home, tmp_path: Path
) -> None:
    for host in hosts:
        ssh_home.trust(host)
    share = -(-JOBS // len(USERS))
    laptops = [laptop_of(tmp_path, ssh_home, hosts, user, share) for user in USERS]
    over, killed = threading.Event(), list[str]()
    thread = threading.Thread(target=killer, args=(hosts, over, killed))
    thread.start()
    try:
        runs = list(map(submitted, laptops))
        until("every run ends", lambda: all(map(ended, laptops, runs)), seconds=240, told=lambda: state(laptops, hosts))
    finally:
        over.set()
        thread.join()
    told = marks(hosts)
    assert [line for line in told if line.startswith("TWICE")] == []
    assert [laptop.show(run)["status"] for laptop, run in zip(laptops, runs, strict=True)] == ["succeeded"] * 3
    assert killed
    assert len({line for line in told if line.startswith("ran")}) >= share * len(USERS)
    until("no ticket is held after the last process", lambda: not any(map(locked, hosts)), seconds=60)
