"""Stopping jobs on a host over SSH: nothing is left of them in the host's /proc; what they said and made is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from tests.support.hosts.farm import Farm, TestHost
from tests.support.hosts.home import Home
from tests.support.people.laptop import Laptop
from tests.support.people.pipeline import remote_laptop
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(300)

SHAPES = {
    "plain": "sleep 6001",
    "pipeline": "sleep 6002 | cat",
    "new-session": "setsid sleep 6003 & sleep 6003",
    "double-fork": "(setsid sh -c 'env -i sleep 6004 & sleep 6004 &' &) ; sleep 6004",
    "ignores-term": "trap '' TERM; while :; do sleep 6005; done",
    "respawns": "while :; do sleep 6006 & wait; done",
}


@pytest.fixture
def host(farm: Farm) -> TestHost:
    return farm.start()[0]


@pytest.fixture
def laptop(host: TestHost, ssh_home: Home, tmp_path: Path) -> Laptop:
    return remote_laptop(tmp_path, ssh_home, host, slots=8)


def write_jobs(laptop: Laptop, jobs: Mapping[str, str], *, artifacts: str = "") -> None:
    """One workflow for each job, and `all` that waits for them all."""
    lines = ["workflows:"]
    for name, command in jobs.items():
        lines += [
            f"  - name: {name}",
            "    commands:",
            f"      - touch ~/began-{name}",
            "      - |",
            f"        {command}",
        ]
        if artifacts:
            lines.append(f"    artifacts: [{artifacts}]")
    lines += ["  - name: all", f"    depends-on: [{', '.join(jobs)}]", "    commands: [touch ~/began-all]"]
    laptop.write({".dstack/workflows.yaml": "\n".join(lines) + "\n"})
    laptop.commit()


def start(laptop: Laptop, host: TestHost, *names: str) -> str:
    """Run `all` in the background and wait until these jobs have begun -> the run's name."""
    name = laptop.dstack("run", "all", "-d").stdout.split()[0]
    for job in names:
        until(f"{job} runs", partial(exists, host, f"/home/alice/began-{job}"), seconds=60)
    return name


def exists(host: TestHost, path: str) -> bool:
    return host.exec(["test", "-e", path]).code == 0


def processes_of_alice(host: TestHost) -> list[str]:
    """Everything that runs under her account, sshd's own processes apart."""
    lines = host.exec(["ps", "-u", "alice", "-o", "pid=,args="]).output.decode().splitlines()
    return [line for line in lines if "sshd:" not in line]


def ended(laptop: Laptop, run: str) -> bool:
    return bool(laptop.show(run)["status"] != "running")


def test_six_shapes_of_processes_end_with_the_run(laptop: Laptop, host: TestHost) -> None:
    """Stop one workflow: it alone ends. Stop the run: 0 survivors, and what depended on them never began."""
    write_jobs(laptop, SHAPES)
    run = start(laptop, host, *SHAPES)
    laptop.dstack("stop", run, "plain")
    running = "\n".join(processes_of_alice(host))
    assert "6001" not in running
    assert all(f"600{number}" in running for number in range(2, 7))
    assert laptop.statuses(run)["plain"] == "stopped"

    laptop.dstack("stop", run)
    assert [line for line in processes_of_alice(host) if "sleep" in line] == []
    until("the run ends", lambda: ended(laptop, run), seconds=60)
    until("nothing of alice runs", lambda: not processes_of_alice(host), seconds=60)
    assert set(laptop.statuses(run).values()) == {"stopped"}
    assert laptop.show(run)["status"] == "stopped"
    assert not exists(host, "/home/alice/began-all")


def test_a_job_whose_runner_and_supervisor_are_frozen_is_stopped(laptop: Laptop, host: TestHost) -> None:
    """The coordinator is an attached one on the laptop; all of dstack on the host is frozen, the job goes on."""
    write_jobs(laptop, {"plain": SHAPES["plain"]})
    attached = laptop.start("run", "all")
    try:
        until("plain runs", partial(exists, host, "/home/alice/began-plain"), seconds=60)
        assert host.exec(["pkill", "-STOP", "-u", "alice", "python3"]).code == 0
        out = laptop.dstack("stop", "-").stdout
        assert "plain: stopped" in out
        assert [line for line in processes_of_alice(host) if "sleep" in line] == []
        attached.communicate(timeout=60)
        assert attached.returncode == 1
    finally:
        host.exec(["pkill", "-CONT", "-u", "alice", "python3"])
        if attached.poll() is None:
            attached.kill()
            attached.communicate()
    until("nothing of alice runs", lambda: not processes_of_alice(host), seconds=60)


POLITE = (
    "trap 'echo last words; exit 1' TERM; echo first; echo half > made.txt; touch ~/began-inside; "
    "while :; do sleep 0.05; done"
)


def test_a_stopped_job_keeps_its_last_words_and_its_artifacts(laptop: Laptop, host: TestHost, tmp_path: Path) -> None:
    """After TERM a job may still speak; log and artifacts are there afterwards, the latter as partial."""
    write_jobs(laptop, {"polite": POLITE}, artifacts="made.txt")
    run = start(laptop, host, "inside")
    laptop.dstack("stop", run, "polite")
    until("the run ends", lambda: ended(laptop, run), seconds=60)
    log = laptop.dstack("logs", run, "polite").stdout.splitlines()
    assert log[0] == "first"
    assert "last words" in log
    assert "made.txt (partial)" in laptop.dstack("artifacts", "ls", run, "polite").stdout
    laptop.dstack("artifacts", "pull", run, "polite", "-o", str(tmp_path / "out"))
    assert (tmp_path / "out/made.txt").read_text() == "half\n"


FAREWELL = 24_000_000
LONG_FAREWELL = (
    f"trap 'head -c {FAREWELL} /dev/zero | tr \"\\0\" x; echo; echo last words; exit 1' TERM; "
    "touch ~/began-inside; while :; do sleep 0.05; done"
)


def test_what_a_stopped_job_says_at_length_is_kept_whole(laptop: Laptop, host: TestHost) -> None:
    """The log goes on into the bucket after the last process is gone, until every byte is there."""
    write_jobs(laptop, {"talker": LONG_FAREWELL})
    run = start(laptop, host, "inside")
    laptop.dstack("stop", run)
    until("the run ends", lambda: ended(laptop, run), seconds=90)
    lines = laptop.dstack("logs", run, "talker", "--raw").stdout.splitlines()
    assert "last words" in lines[-2:]  # bash may add a word of its own about its killed child
    assert sum(line.count("x") for line in lines if line.startswith("xx")) == FAREWELL


def test_abort_gives_no_time_and_keeps_no_artifacts(laptop: Laptop, host: TestHost) -> None:
    """A job that ignores TERM is ended at once; its log is there, its artifacts are not."""
    stubborn = "trap '' TERM; echo stubborn; echo half > made.txt; touch ~/began-inside; while :; do sleep 6005; done"
    write_jobs(laptop, {"stubborn": stubborn}, artifacts="made.txt")
    run = start(laptop, host, "inside")
    laptop.dstack("stop", run, "--abort")
    assert [line for line in processes_of_alice(host) if "sleep" in line] == []
    until("the run ends", lambda: ended(laptop, run), seconds=60)
    assert laptop.statuses(run) == {"stubborn": "stopped", "all": "stopped"}
    assert "stubborn\n" in laptop.dstack("logs", run, "stubborn").stdout
    assert json.loads(laptop.dstack("show", run, "--json").stdout)["status"] == "stopped"
    assert "made.txt" not in laptop.dstack("artifacts", "ls", run).stdout
