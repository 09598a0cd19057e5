"""The screen of an attached run: a live table in a terminal, plain lines in a pipe, next to nothing for JSON."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import Protocol

from dstack.core.format.records import RunRecord
from dstack.ports import Screen
from dstack.ui.live import LiveScreen
from dstack.ui.plain import PlainScreen
from dstack.ui.tables import use_colour


class RunScreen(Screen, Protocol):
    """`ports.Screen` as a context manager; at the end of the block everything held back and a last line are shown."""

    def __enter__(self) -> RunScreen: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_screen(record: RunRecord, *, quiet: bool = False) -> RunScreen:
    """The screen for this run. `quiet` leaves standard output alone: state lines go to stderr, logs nowhere."""
    workflows = [str(spec.workflow) for spec in record.plan.jobs]
    if quiet:
        return PlainScreen(record.name, workflows, out=sys.stderr.buffer, logs=False)
    if sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return LiveScreen(record.name, workflows, out=sys.stdout.buffer, colour=use_colour(sys.stdout))
    return PlainScreen(record.name, workflows, out=sys.stdout.buffer)
