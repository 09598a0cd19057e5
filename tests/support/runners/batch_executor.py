"""A third executor, for tests: a toy batch system, whose jobs are no descendants of a supervisor's.

`python -m tests.support.runners.batch_executor serve FOLDER` is the batch system, `... supervise ROOT CONTROL` a
supervisor whose host has this executor besides the real ones. Nothing else of dstack's knows of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

from dstack.runner.base.spool import Attempt
from dstack.runner.executors import choice
from dstack.runner.executors.executor import Diagnosis, Launch, LogPipe, marker, named_pipe, stop_grace
from dstack.runner.job.supervisor import supervise
from dstack.wire.job_messages import HoldRequest, JobOrder

TITLE = "batch job of "
"""Begins the titles of orders that this executor takes; the folder of the batch system follows."""
POLL_S = 0.01
REMOVAL_S = 20.0


def title(folder: Path) -> str:
    """The title of a job for the batch system in `folder`."""
    return f"{TITLE}{folder}"


class BatchExecutor:
    kind: ClassVar[str] = "batch job"
    has_keeper: ClassVar[bool] = True
    stop_margin_s: ClassVar[float] = 10.0

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._trace = Path(attempt.folder) / "batch"

    @classmethod
    def takes(cls, order: JobOrder) -> bool:
        return order.title.startswith(TITLE)

    def hints(self, gpus: tuple[int, ...]) -> tuple[str, ...]:
        return ()

    def open_pipe(self) -> LogPipe:
        return named_pipe(f"{self._attempt.folder}/pipe")

    def start(self, order: JobOrder, launch: Launch) -> int:
        self._trace.write_text(order.title[len(TITLE) :])
        path = Path(self._attempt.project(order.prefix))
        job = {
            "argv": ["sh", "-e", self._attempt.script, *order.arguments],
            "cwd": os.fspath(path),
            "environment": {**order.environment, **launch.secrets, **marker(self._attempt.nonce)},
            "output": self._attempt.log if launch.pipe is None else launch.pipe.path,
        }
        keeper = subprocess.Popen(
            [sys.executable, "-m", __name__ if __name__ != "__main__" else MODULE, "keep", self._place("")],
            stdin=subprocess.PIPE,
            env={**os.environ, **marker(self._attempt.nonce)},
            pass_fds=launch.inherited,
            start_new_session=True,
        )
        assert keeper.stdin is not None
        with keeper.stdin:
            keeper.stdin.write(json.dumps([job, self._attempt.root, self._attempt.nonce]).encode())
        keeper.returncode = 0  # reaped by the supervisor
        return keeper.pid

    def _place(self, suffix: str) -> str:
        return f"{self._trace.read_text()}/{self._attempt.nonce}{suffix}"

    def diagnosis(self) -> Diagnosis:
        return Diagnosis()

    def label(self) -> str:
        return self._attempt.nonce

    def created(self) -> bool:
        return self._trace.exists()

    def runs(self) -> bool | None:
        if not os.path.exists(os.path.dirname(self._place(""))):
            return None
        return os.path.exists(self._place(".job")) and not os.path.exists(self._place(".code"))

    def remove(self) -> bool:
        Path(self._place(".cancel")).write_text("0")
        deadline = time.monotonic() + REMOVAL_S
        while self.runs() and time.monotonic() < deadline:
            time.sleep(POLL_S)
        if self.runs() is not False:
            return False
        self._trace.unlink()
        return True


MODULE = "tests.support.runners.batch_executor"


def keep(place: str) -> int:
    """Submit the job and wait for it; SIGTERM cancels it."""
    job, root, nonce = json.loads(sys.stdin.read())
    attempt = Attempt(root, nonce)
    signal.signal(signal.SIGTERM, lambda *_: Path(place + ".cancel").write_text(str(stop_grace(attempt))))
    Path(place + ".new").write_text(json.dumps(job))
    os.rename(place + ".new", place + ".job")
    while not os.path.exists(place + ".code"):
        time.sleep(POLL_S)
    return int(Path(place + ".code").read_text())


class Daemon:
    """The batch system: a job for each `.job`, its exit code in `.code`; `.cancel` holds the seconds of grace."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._jobs: dict[str, subprocess.Popen[bytes]] = {}
        self._kill: dict[str, float] = {}

    def serve(self) -> None:
        while True:
            for path in self._folder.glob("*.job"):
                if path.stem not in self._jobs:
                    self._jobs[path.stem] = self._start(json.loads(path.read_text()))
                elif not path.with_suffix(".code").exists():
                    self._look(path)
            time.sleep(POLL_S)

    def _start(self, job: dict[str, Any]) -> subprocess.Popen[bytes]:
        with open(job["output"], "ab", buffering=0) as output:
            return subprocess.Popen(
                job["argv"],
                cwd=job["cwd"],
                env={**os.environ, **job["environment"]},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                umask=0o022,
            )

    def _look(self, path: Path) -> None:
        job = self._jobs[path.stem]
        with contextlib.suppress(FileNotFoundError, ValueError):
            grace = float(path.with_suffix(".cancel").read_text())
            if path.stem not in self._kill:
                self._kill[path.stem] = time.monotonic() + grace
                self._signal(job, signal.SIGTERM)
            elif time.monotonic() > self._kill[path.stem] or grace == 0:
                self._signal(job, signal.SIGKILL)
        code = job.poll()
        if code is not None:
            self._signal(job, signal.SIGKILL)  # what it left behind
            path.with_suffix(".new").write_text(str(code if code >= 0 else 128 - code))
            os.rename(path.with_suffix(".new"), path.with_suffix(".code"))

    @staticmethod
    def _signal(job: subprocess.Popen[bytes], number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, number)


def main(command: str, *arguments: str) -> int:
    if command == "serve":
        Daemon(Path(arguments[0])).serve()
    if command == "keep":
        return keep(arguments[0])
    assert command == "supervise"
    root, control, order = arguments
    choice.EXECUTORS = (BatchExecutor, *choice.EXECUTORS)
    supervise(root, HoldRequest.from_json(json.loads(order)), socket.socket(fileno=int(control)))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
