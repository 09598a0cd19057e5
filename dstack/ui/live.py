"""The screen of an attached run in a terminal: logs scroll above a small table, drawn again in place.

Drawn by hand rather than with rich: log bytes go straight to the terminal at any rate, and only the few lines of the
table are ever drawn again, at most FRAMES_PER_S times a second.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO

from dstack.core.lifecycle import BEGUN_STATES, ENDED_STATES
from dstack.model import JobStatus
from dstack.ui.logstream import LogStreams
from dstack.ui.plain import closing_line, job_note, sum_word
from dstack.ui.tables import Column, cut, display_width, note_lines, size_text, table_lines
from dstack.ui.terminal import clean
from dstack.ui.times import duration_text

FRAMES_PER_S = 10
HIDE_CURSOR = b"\x1b[?25l"
SHOW_CURSOR = b"\x1b[?25h"
BUSY_STATUSES = BEGUN_STATES | {JobStatus.PLACED, JobStatus.PREPARING}
BAD_ENDS = frozenset({JobStatus.FAILED, JobStatus.LOST})
PENDING_LOG_BYTES = 256 * 1024
"""Bytes of waiting log that are drawn at once, without regard to FRAMES_PER_S."""
_COLUMNS = (
    Column(title="WORKFLOW", floor=8),
    Column(title="STATUS", floor=9, styled=True),
    Column(title="HOST"),
    Column(title="ELAPSED", right=True),
    Column(title="NOTE", floor=12),
)


@dataclass(slots=True)
class JobRow:
    """One line of the table. Times are of the monotonic clock, 0.0 while there is none."""

    workflow: str
    status: str = JobStatus.WAITING
    host: str = ""
    note: str = ""
    started: float = 0.0
    ended: float = 0.0

    def elapsed(self, now: float) -> str:
        return duration_text((self.ended or now) - self.started) if self.started else ""


@dataclass(slots=True)
class DrawnTable:
    """The table at the bottom of the terminal now: the widths of the drawn lines."""

    widths: list[int] = field(default_factory=list)

    def height(self, columns: int) -> int:
        """Rows of the table in a terminal of `columns` columns, also where the table was drawn with other columns."""
        return sum(max(1, -(-width // columns)) for width in self.widths)


def table_rows(jobs: Sequence[JobRow], now: float, room: int) -> list[tuple[str, ...]]:
    """The rows to show where there is room for `room`: busy jobs first, the rest summed up in the last row."""
    if len(jobs) <= room:
        return [_cells(job, now) for job in jobs]
    urgent = sorted(jobs, key=_urgency)[: max(1, room - 1)]
    shown = [job for job in jobs if any(job is other for other in urgent)]
    rest = [job.status for job in jobs if not any(job is other for other in urgent)]
    counts = ", ".join(f"{rest.count(status)} {status}" for status in sorted(set(rest)))
    return [*(_cells(job, now) for job in shown), (f"+ {len(rest)} more", "", "", "", counts)]


def _urgency(job: JobRow) -> int:
    status = job.status
    order = (status in BUSY_STATUSES, status in BAD_ENDS, status == JobStatus.QUEUED, status not in ENDED_STATES)
    return next((rank for rank, holds in enumerate(order) if holds), len(order))


def _cells(job: JobRow, now: float) -> tuple[str, ...]:
    return (job.workflow, job.status, job.host or "-", job.elapsed(now), job.note)


def bar(label: str, done: int, total: int, width: int) -> str:
    """`code to gpu-1  ██████░░░░  3.1 MB of 5.2 MB` in at most `width` columns."""
    amount = f"{size_text(done)} of {size_text(total)}"
    share = min(1.0, done / total) if total > 0 else 0.0
    name = cut(clean(label), max(4, width - len(amount) - 9))
    size = max(5, min(20, width - display_width(name) - len(amount) - 4))
    full = int(size * share)
    return cut(f"{name}  {'█' * full}{'░' * (size - full)}  {amount}", width)


class LiveScreen:
    """Implements `ports.Screen` on a terminal. Never raises: when the terminal is gone, nothing more is written."""

    def __init__(
        self,
        run: str,
        workflows: Sequence[str],
        *,
        out: BinaryIO,
        colour: bool = True,
        size: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        self._run = clean(run)
        self._out = out
        self._colour = colour
        self._size = size or self._terminal_size
        self._jobs = {name: JobRow(workflow=name) for name in workflows}
        self._logs = LogStreams(prefixed=len(workflows) > 1, whole_lines=True)
        self._progress: dict[str, tuple[int, int]] = {}
        self._pending: list[bytes] = []
        self._waiting = 0
        self._drawn = DrawnTable()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._gone = False
        self._painter = threading.Thread(target=self._paint, name="screen", daemon=True)

    def job(
        self, workflow: str, status: str, host: str, note: str, took: float = 0.0, *, reused_from: str = ""
    ) -> None:
        now = time.monotonic()
        with self._lock:
            row = self._jobs.setdefault(workflow, JobRow(workflow=workflow))
            row.status, row.host, row.note = status, host or row.host, job_note(note, reused_from)
            if status in BUSY_STATUSES and not row.started:
                row.started = now
            # Told by the clock of the host as a duration: the clocks themselves may differ.
            if took:
                row.started = now - took
            if status in ENDED_STATES:
                row.ended = now
                self._append(self._logs.finish(workflow))
        self._wake.set()

    def log(self, workflow: str, data: bytes) -> None:
        with self._lock:
            self._append(self._logs.feed(workflow, data))
            # A fast log does not wait for the painter, so that memory stays bounded.
            if self._waiting >= PENDING_LOG_BYTES:
                self._draw()
                return
        self._wake.set()

    def progress(self, label: str, done: int, total: int) -> None:
        with self._lock:
            self._progress[label] = (done, total)
            if done >= total:
                del self._progress[label]
        self._wake.set()

    def message(self, text: str) -> None:
        with self._lock:
            columns, _ = self._size()
            self._append("\n".join([*note_lines(text, columns), ""]).encode())
        self._wake.set()

    def __enter__(self) -> LiveScreen:
        self._write(HIDE_CURSOR)
        self._painter.start()
        self._wake.set()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._wake.set()
        self._painter.join()
        with self._lock:
            self._append(self._logs.finish_all())
            self._progress.clear()
            self._draw(last=True)
            self._write(SHOW_CURSOR)

    def _append(self, data: bytes) -> None:
        if data:
            self._pending.append(data)
            self._waiting += len(data)

    def _paint(self) -> None:
        """Draw after a change, at most FRAMES_PER_S times a second, and each second for the elapsed times."""
        while not self._closing:
            self._wake.wait(1.0)
            self._wake.clear()
            with self._lock:
                self._draw()
            if not self._closing:
                time.sleep(1 / FRAMES_PER_S)

    def _draw(self, *, last: bool = False) -> None:
        """Take the table away, give the waiting log, and put the table back; the caller holds the lock."""
        columns, rows = self._size()
        lines = self._block(columns, rows, last=last)
        height = self._drawn.height(columns)
        # Everything in one write, so that no terminal shows a state in between.
        parts = [b"\r\x1b[%dA" % height if height else b"\r", b"\x1b[J"]
        parts += self._pending
        self._pending, self._waiting = [], 0
        parts += [line.encode() + b"\n" for _, line in lines]
        self._drawn = DrawnTable(widths=[width for width, _ in lines])
        self._write(b"".join(parts))

    def _block(self, columns: int, rows: int, *, last: bool) -> list[tuple[int, str]]:
        """The lines at the bottom, each with its width in columns; the last column stays free against wrapping."""
        now = time.monotonic()
        width = max(20, columns - 1)
        # Half of the terminal stays for the logs.
        room = len(self._jobs) if last else max(3, rows // 2 - len(self._progress))
        cells = table_rows(list(self._jobs.values()), now, room)
        bare = table_lines(_COLUMNS, cells, width=width)
        shown = table_lines(_COLUMNS, cells, width=width, colour=self._colour)
        # Measured without colours: a sequence fills no columns.
        lines = [(display_width(plain), line) for plain, line in zip(bare, shown, strict=True)]
        for label, (done, total) in self._progress.items():
            line = bar(label, done, total, width)
            lines.append((display_width(line), line))
        sums = [sum_word(job.status, job.host) for job in self._jobs.values()]
        footer = closing_line(self._run, sums) if last else self._footer(width)
        return [*lines, (display_width(footer), cut(footer, width))] if footer else lines

    def _footer(self, width: int) -> str:
        return cut(f"{self._run}: Ctrl-C detaches, the run goes on", width)

    def _terminal_size(self) -> tuple[int, int]:
        columns = os.environ.get("COLUMNS", "")
        try:
            size = os.get_terminal_size(self._out.fileno())
        except (OSError, ValueError):
            size = os.terminal_size((80, 24))
        wide = int(columns) if columns.isdecimal() and int(columns) else size.columns
        return wide or 80, size.lines or 24

    def _write(self, data: bytes) -> None:
        if self._gone:
            return
        try:
            self._out.write(data)
            self._out.flush()
        except (OSError, ValueError):
            self._gone = True
