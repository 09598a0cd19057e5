"""The screen of an attached run in a pipe or a file: a line for each change, and the logs."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import BinaryIO

from dstack.core.lifecycle import ENDED_STATES, cause_of_not_run
from dstack.model import JobStatus
from dstack.ui.logstream import LogStreams
from dstack.ui.tables import size_text
from dstack.ui.terminal import clean

NOT_RUN_WORD = "not run"
STATES_WITHOUT_HOST = frozenset({JobStatus.REUSED, JobStatus.WAITING, JobStatus.QUEUED})
"""States in which a line does not name a host."""


def job_line(workflow: str, status: str, host: str, note: str, reused_from: str = "") -> str:
    """`train: running on gpu-1 (joins the attempt of bob)`."""
    cause = cause_of_not_run(note)
    if status == JobStatus.STOPPED and not host and cause is not None:
        return clean(f"{workflow}: {NOT_RUN_WORD} ({cause})")
    if reused_from:
        return clean(f"{workflow}: {status} {job_note(note, reused_from)}")
    place = f" on {host}" if host and status not in STATES_WITHOUT_HOST else ""
    remark = f" ({note})" if note else ""
    return clean(f"{workflow}: {status}{place}{remark}")


def job_note(note: str, reused_from: str) -> str:
    """The note of a job in a table: the origin of a reused result, else the given note."""
    return f"from {reused_from}" if reused_from else note


def sum_word(status: str, host: str) -> str:
    """The word for a job in the last line: a job stopped before any host had the job counts as not run."""
    return NOT_RUN_WORD if status == JobStatus.STOPPED and not host else status


def closing_line(run: str, statuses: Sequence[str]) -> str:
    """The last line: how the run ended, by the word for each job; "" while a job is open."""
    if not statuses or any(status not in ENDED_STATES and status != NOT_RUN_WORD for status in statuses):
        return ""
    counts = {status: statuses.count(status) for status in sorted(set(statuses), key=list(statuses).index)}
    return f"{run}: " + ", ".join(f"{count} {status}" for status, count in counts.items())


class PlainScreen:
    """Implements `ports.Screen`. Never raises: when the reader of the output is gone, nothing more is written."""

    def __init__(self, run: str, workflows: Sequence[str], *, out: BinaryIO, logs: bool = True) -> None:
        self._run = clean(run)
        self._out = out
        self._shown: dict[str, tuple[str, str, str]] = {}
        self._statuses = dict.fromkeys(workflows, JobStatus.WAITING.value)
        self._logs = LogStreams(prefixed=len(workflows) > 1, whole_lines=True) if logs else None
        self._lock = threading.Lock()
        self._gone = False

    def job(
        self, workflow: str, status: str, host: str, note: str, took: float = 0.0, *, reused_from: str = ""
    ) -> None:
        with self._lock:
            state = (status, host, job_note(note, reused_from))
            last = self._shown.get(workflow)
            # What a job still waits for changes with every input that comes: it is said once.
            if last == state or (last is not None and last[0] == status == JobStatus.WAITING):
                return
            self._shown[workflow] = state
            self._statuses[workflow] = sum_word(status, host)
            # The last line of a log may lack its newline: it comes before the state that ends the job.
            rest = self._logs.finish(workflow) if self._logs and status in ENDED_STATES else b""
            self._write(rest + job_line(workflow, status, host, note, reused_from).encode() + b"\n")

    def log(self, workflow: str, data: bytes) -> None:
        with self._lock:
            if self._logs:
                self._write(self._logs.feed(workflow, data))

    def progress(self, label: str, done: int, total: int) -> None:
        if done >= total > 0:
            self.message(f"{label}: {size_text(total)}")

    def message(self, text: str) -> None:
        with self._lock:
            self._write(clean(text).encode() + b"\n")

    def __enter__(self) -> PlainScreen:
        self.message(self._run)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._write(self._logs.finish_all() if self._logs else b"")
            last = closing_line(self._run, list(self._statuses.values()))
            self._write(last.encode() + b"\n" if last else b"")

    def _write(self, data: bytes) -> None:
        if self._gone or not data:
            return
        try:
            self._out.write(data)
            self._out.flush()
        except (OSError, ValueError):
            self._gone = True
            if self._logs:
                self._logs.leave_unread()
