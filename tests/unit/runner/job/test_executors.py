"""What a supervisor and a stop rely on, for every executor: plain, container, and a third that is known to tests alone.

Each attempt is held, started and reported by a real supervisor; stops and states are those of a runner.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dstack.runner.base.channel import Request, Writer
from dstack.runner.base.spool import Attempt, write_json
from dstack.runner.executors import choice
from dstack.runner.executors.choice import executor_for, executor_outside
from dstack.runner.executors.container import ContainerExecutor
from dstack.runner.executors.plain import PlainExecutor
from dstack.runner.job.stop import state, stop
from dstack.wire import ENDED, RUNNING, VANISHED
from dstack.wire.job_messages import HoldRequest, StopRequest
from tests.support.checkout import ROOT
from tests.support.runners import batch_executor
from tests.support.runners.batch_executor import BatchExecutor
from tests.support.runners.client import until
from tests.support.runners.containers import SMALL, engine
from tests.support.runners.host import processes_with
from tests.support.runners.orders import job_order

__all__ = ["engine"]
KINDS = ("plain", "batch", pytest.param("container", marks=pytest.mark.docker))
OUTSIDE = ("batch", pytest.param("container", marks=pytest.mark.docker))


class Stage:
    """One host with one executor for all its attempts."""

    def __init__(self, folder: Path, fields: dict[str, Any]) -> None:
        self._root = folder / "dstack"
        self._slots = folder / "slots"
        self._fields = fields
        self._numbers = itertools.count()
        self.supervisors: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, script: str, *, secrets: dict[str, str] | None = None, **fields: Any) -> Attempt:
        attempt = Attempt(str(self._root), f"{os.getpid():08d}{next(self._numbers):012d}")
        attempt.make()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            held = HoldRequest(nonce=attempt.nonce, slots=9).to_json()
            self.supervisors[attempt.nonce] = subprocess.Popen(
                [sys.executable, "-m", batch_executor.MODULE, "supervise", str(self._root), str(theirs.fileno()),
                 json.dumps(held)],
                cwd=ROOT,
                env={**os.environ, "DSTACK_SLOTS_DIR": str(self._slots), "PYTHONPATH": str(ROOT)},
                pass_fds=[theirs.fileno()],
            )  # fmt: skip
            theirs.close()
            said = ours.makefile("rwb")
            assert json.loads(said.readline()) == {"held": []}
            self._prepare(attempt, script, fields)
            said.write(json.dumps({"environment": secrets or {}}).encode() + b"\n")
            said.flush()
            assert json.loads(said.readline()) == {"started": True}
        return attempt

    def _prepare(self, attempt: Attempt, script: str, fields: dict[str, Any]) -> None:
        order = job_order(**self._fields, **fields)
        Path(attempt.project(order.prefix)).mkdir(parents=True)
        Path(attempt.script).write_text(script)
        write_json(attempt.attempt, order.to_json())

    def finish(self, attempt: Attempt) -> tuple[str, dict[str, Any]]:
        until(lambda: state(attempt) == ENDED, "the attempt ends")
        until(lambda: not attempt.lives(), "the supervisor has ended")
        return Path(attempt.log).read_text(), exit_of(attempt)

    def run(self, script: str, **fields: Any) -> tuple[str, dict[str, Any]]:
        return self.finish(self.start(script, **fields))

    def await_log(self, attempt: Attempt, text: str) -> None:
        until(lambda: text in Path(attempt.log).read_text(), f"{text!r} in the log")

    def tear_down(self) -> None:
        for nonce, supervisor in self.supervisors.items():
            outside = executor_outside(Attempt(str(self._root), nonce))
            supervisor.kill()
            supervisor.wait()
            for pid in processes_with(str(self._root / "spool" / nonce)):
                os.kill(pid, signal.SIGKILL)
            if outside is not None:
                outside.remove()


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def exit_of(attempt: Attempt) -> dict[str, Any]:
    report = attempt.read_exit()
    return {} if report is None else report.to_json()


def stop_now(attempt: Attempt, *, grace: float = 0.0, abort: bool = False) -> dict[str, Any]:
    order = StopRequest(nonce=attempt.nonce, grace=grace, abort=abort)
    request = Request(order.envelope(1), Writer(os.open(os.devnull, os.O_WRONLY)), lambda _: None)
    end = stop(request, order, attempt).exit
    return {} if end is None else end.to_json()


@pytest.fixture
def stage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A host whose attempts all run by the executor that the test's parameter names."""
    monkeypatch.setattr(choice, "EXECUTORS", (BatchExecutor, *choice.EXECUTORS))
    fields: dict[str, Any] = {}
    daemon = None
    if request.param == "container":
        request.getfixturevalue("engine")
        fields = {"image": SMALL}
    if request.param == "batch":
        fields = {"title": batch_executor.title(tmp_path / "batch")}
        (tmp_path / "batch").mkdir()
        daemon = subprocess.Popen(
            [sys.executable, "-m", batch_executor.MODULE, "serve", str(tmp_path / "batch")], cwd=ROOT
        )
    made = Stage(tmp_path, fields)
    try:
        yield made
    finally:
        made.tear_down()
        if daemon is not None:
            daemon.kill()
            daemon.wait()


def nothing_runs_outside(attempt: Attempt) -> bool:
    executor = executor_outside(attempt)
    return executor is None or executor.runs() is False


@pytest.mark.parametrize("stage", KINDS, indirect=True)
def test_output_and_exit_code_are_the_jobs(stage: Stage) -> None:
    log, end = stage.run("echo out; echo err >&2; exit 3")
    assert log == "out\nerr\n"
    assert (end["code"], end["signal"], end["reason"], end["stopped"]) == (3, None, "exit code 3", False)


@pytest.mark.parametrize("stage", KINDS, indirect=True)
def test_arguments_environment_secrets_and_folder_reach_the_job_and_no_secret_the_log(stage: Stage) -> None:
    attempt = stage.start(
        'printf "%s|" "$1" "$plain" "$secret"; pwd; umask; printf %s "$secret" >seen; printf %s "$DSTACK_ATTEMPT"',
        secrets={"secret": "hush-é'\"$(id)"},
        prefix="sub/",
        arguments=["a 'b'"],
        environment={"plain": "x\ny"},
        artifacts=["seen", "absent"],
    )
    log, end = stage.finish(attempt)
    folder = attempt.project("sub/")
    assert log.startswith(f"a 'b'|x\ny|***|{folder}\n0022\n{attempt.nonce}")
    assert Path(folder, "seen").read_text() == "hush-é'\"$(id)"
    assert (end["code"], end["missing"]) == (0, ["absent"])


@pytest.mark.parametrize("stage", KINDS, indirect=True)
def test_a_stop_gives_the_job_its_grace(stage: Stage) -> None:
    attempt = stage.start("trap 'echo saved; exit 0' TERM; echo up; while :; do sleep 0.05; done")
    stage.await_log(attempt, "up")
    end = stop_now(attempt, grace=20)
    assert (end["stopped"], end["reason"]) == (True, "stopped")
    assert stage.finish(attempt)[0].endswith("saved\n")


@pytest.mark.parametrize("stage", KINDS, indirect=True)
def test_a_stop_without_grace_ends_a_job_that_ignores_sigterm(stage: Stage) -> None:
    attempt = stage.start("trap '' TERM; echo up; while :; do sleep 0.05; done")
    stage.await_log(attempt, "up")
    assert stop_now(attempt, abort=True)["stopped"]
    assert nothing_runs_outside(attempt)
    assert state(attempt) == ENDED


@pytest.mark.parametrize("stage", KINDS, indirect=True)
def test_a_job_ends_when_its_time_is_over(stage: Stage) -> None:
    end = stage.run("sleep 1000", max_duration=1)[1]
    assert (end["stopped"], end["reason"]) == (False, "stopped after max-duration of 1 s")


@pytest.mark.parametrize("stage", KINDS, indirect=True)
def test_what_a_script_leaves_running_is_ended_before_its_report(stage: Stage) -> None:
    attempt = stage.start(
        "(trap '' HUP; while :; do echo x >>beat; sleep 0.05; done) & while [ ! -e beat ]; do :; done"
    )
    assert stage.finish(attempt)[1]["code"] == 0
    beat = Path(attempt.work, "beat")
    size = beat.stat().st_size
    with pytest.raises(AssertionError):
        until(lambda: beat.stat().st_size > size, "it beats on", seconds=0.5)


@pytest.mark.parametrize("stage", KINDS, indirect=True)
def test_a_job_whose_supervisor_was_killed_still_runs_and_can_be_stopped(stage: Stage) -> None:
    attempt = stage.start("echo up; sleep 1000")
    stage.await_log(attempt, "up")
    stage.supervisors[attempt.nonce].kill()
    stage.supervisors[attempt.nonce].wait()
    assert state(attempt) == RUNNING
    end = stop_now(attempt)
    assert (end["code"], end["stopped"]) == (None, True)
    assert end["reason"] == "its supervisor had been killed; what was left of the job was ended"
    assert not attempt.lives()
    assert nothing_runs_outside(attempt)


@pytest.mark.parametrize("stage", OUTSIDE, indirect=True)
def test_a_job_outside_of_the_process_tree_runs_on_without_any_process_of_ours(stage: Stage) -> None:
    attempt = stage.start("echo up; while [ ! -e go ]; do sleep 0.05; done; echo after")
    stage.await_log(attempt, "up")
    supervisor = stage.supervisors[attempt.nonce]
    ours = [supervisor.pid, *children_of(supervisor.pid)]
    ours += [pid for child in ours[1:] for pid in children_of(child)]
    for pid in ours:
        os.kill(pid, signal.SIGKILL)
    supervisor.wait()
    until(lambda: not attempt.lives(), "no process of ours is left")
    assert state(attempt) == RUNNING
    Path(attempt.work, "go").touch()
    stage.await_log(attempt, "after")
    until(lambda: state(attempt) == VANISHED, "nothing runs any more")
    stop_now(attempt)
    assert nothing_runs_outside(attempt)


def test_the_order_alone_chooses(tmp_path: Path) -> None:
    attempt = Attempt(str(tmp_path), "a" * 16)
    assert isinstance(executor_for(attempt, job_order(image="i:1")), ContainerExecutor)
    for image in (None, ""):
        assert isinstance(executor_for(attempt, job_order(image=image)), PlainExecutor)


def test_a_damaged_order_hides_no_container(tmp_path: Path) -> None:
    attempt = Attempt(str(tmp_path), "a" * 16)
    assert executor_outside(attempt) is None
    Path(attempt.container).mkdir(parents=True)
    Path(attempt.attempt).write_text("{")
    Path(attempt.container, "cid").touch()
    assert isinstance(executor_outside(attempt), ContainerExecutor)
