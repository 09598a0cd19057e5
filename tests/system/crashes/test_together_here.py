"""Two shipped coordinators on one machine, each with a "host" of its own: one of them dies while its job runs on."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
from pathlib import Path

import pytest

from dstack.adapters.runner.client import RunnerClient
from dstack.adapters.unwatched_screen import LogScreen
from dstack.app.coordination.run import Coordination
from dstack.model import RunStatus
from dstack.session.coordinator_parts import make_context, own_coordinator
from dstack.session.hosts import open_hosts
from dstack.wire.job_messages import JobOrder
from tests.support.faults.adversary import COORDINATOR, Place
from tests.support.people.crowded import JOBS, Crowded
from tests.support.waiting import until


def is_free(path: Path) -> bool:
    """Whether nobody holds the lock of a file."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_a_job_whose_coordinator_was_killed_is_not_run_again_while_it_may_still_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one is sure that it died, for both are on one machine; of the job's own host it knows nothing."""
    monkeypatch.setenv("DSTACK_SLOTS_DIR", str(tmp_path / "slots"))
    crowded = Crowded(tmp_path, str(tmp_path / "bucket"), hosts=2, naps={**dict.fromkeys(JOBS, 0.1), "prepare": 8.0})
    place = Place(folder=tmp_path)
    record = crowded.submit()
    assert crowded.hand(record) == []
    until("the first job runs", crowded.marks)
    [job] = [job for job in crowded.view(record).jobs if job.workflow == "prepare"]
    logs = {str(path) for path in (tmp_path / job.host / "coordinators").glob("*.log")}
    [victim] = [
        found.pid
        for found in place.processes()
        if found.role == COORDINATOR and os.readlink(f"/proc/{found.pid}/fd/1") in logs
    ]
    os.kill(victim, signal.SIGKILL)
    until("the job has ended", lambda: ["end", "prepare"] in [mark[:2] for mark in crowded.marks()])
    assert [mark[:2] for mark in crowded.marks()] == [["begin", "prepare"], ["end", "prepare"]], crowded.logs()
    assert crowded.hand(record) == []
    until(
        "the run ends", lambda: crowded.view(record).status is not RunStatus.RUNNING, told=lambda: str(crowded.logs())
    )
    assert crowded.view(record).status is RunStatus.SUCCEEDED
    assert sorted(mark[1] for mark in crowded.marks() if mark[0] == "begin") == sorted(JOBS)


def test_a_supervisor_that_was_killed_before_its_job_began_fails_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim stands, and what held the slot is gone when the host is asked to prepare: the attempt never began."""
    monkeypatch.setenv("DSTACK_SLOTS_DIR", str(tmp_path / "slots"))
    crowded = Crowded(tmp_path, str(tmp_path / "bucket"), hosts=1, naps=dict.fromkeys(JOBS, 0.0))
    prepare, killed = RunnerClient.prepare, list[int]()

    async def prepare_late(self: RunnerClient, order: JobOrder) -> None:
        if not killed:
            spool = tmp_path / "h1/spool" / order.nonce
            killed.append(json.loads((spool / "supervisor.json").read_text())["pid"])
            os.kill(killed[0], signal.SIGKILL)
            until("it is gone", lambda: is_free(spool / "alive"))
        await prepare(self, order)

    monkeypatch.setattr(RunnerClient, "prepare", prepare_late)
    record = crowded.submit()

    async def bring() -> None:
        async with open_hosts(crowded.session) as hosts:
            with own_coordinator(crowded.session) as me:
                context = make_context(crowded.session, hosts.fleet, me, screen=LogScreen(), caller={})
                await Coordination(context, record, me).finish()

    asyncio.run(bring())
    view = crowded.view(record)
    assert killed
    assert view.status is RunStatus.SUCCEEDED, view
    assert [job.attempt for job in view.jobs] == [2, 1, 1, 1]


def test_another_machine_with_the_same_account_and_folder_does_not_speak_for_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`local: true` and `~/.dstack` are the same words on every machine, and an alias may lead elsewhere. The folder of
    the one is moved away here, so that whoever comes next finds what another machine has under the same path."""
    monkeypatch.setenv("DSTACK_SLOTS_DIR", str(tmp_path / "slots"))
    crowded = Crowded(tmp_path, str(tmp_path / "bucket"), hosts=1, naps={**dict.fromkeys(JOBS, 0.0), "prepare": 9.0})
    first = crowded.start("run", JOBS[-1])
    until("the first job runs", crowded.marks)
    first.kill()
    first.wait()
    (tmp_path / "h1").rename(tmp_path / "first machine")
    second = crowded.start("attach", crowded.runs()[0].name)
    try:
        until(
            "it says so, or the job ran twice",
            lambda: "another folder or machine" in crowded.logs()["told-1-attach"] or len(crowded.marks()) > 1,
            told=lambda: str(crowded.logs()),
        )
        assert [mark[:2] for mark in crowded.marks()] == [["begin", "prepare"]], crowded.logs()
        second.kill()
        second.wait()
        (tmp_path / "h1").rename(tmp_path / "second machine")
        (tmp_path / "first machine").rename(tmp_path / "h1")
        crowded.start("attach", crowded.runs()[0].name)
        until("the run ends", lambda: crowded.view(crowded.runs()[0]).status is not RunStatus.RUNNING)
        assert sorted(mark[1] for mark in crowded.marks() if mark[0] == "begin") == sorted(JOBS), crowded.logs()
    finally:
        for process, _ in crowded.started:
            process.kill()
            process.wait()
