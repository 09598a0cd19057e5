"""The logs of several jobs on the way to an output: filtered, prefixed when there are several, in whole lines."""

from __future__ import annotations

import time

from dstack.ui.colours import Colours, restore_beside
from dstack.ui.terminal import LinePrefixer, TerminalFilter, clean

OVERDRAWN_LOOK_S = 2.0
"""Seconds between two looks at a line whose text is being drawn over."""


class LogStream:
    """The log of a job. With `prefix` or `whole_lines` only whole lines come out; else bytes come out in the given
    pieces.

    Colours left on by the log are taken off at its end.
    """

    def __init__(self, prefix: str = "", *, whole_lines: bool = False) -> None:
        self._filter = TerminalFilter()
        self._lines = LinePrefixer(clean(prefix).encode()) if prefix or whole_lines else None
        self._colours = Colours()
        self._released = time.monotonic()

    def feed(self, data: bytes) -> bytes:
        """The bytes to show after `data`."""
        shown = self._filter.feed(data)
        if self._filter.is_holding and time.monotonic() - self._released >= OVERDRAWN_LOOK_S:
            # A progress bar that never ends its line is shown now and then all the same.
            self._released = time.monotonic()
            shown += self._filter.release()
        return self._in_lines(shown)

    def finish(self) -> bytes:
        """The rest, at the end of the log."""
        shown = self._filter.finish()
        rest = self._in_lines(shown) + (self._lines.flush() if self._lines else b"")
        return rest + self._colours.reset

    def _in_lines(self, shown: bytes) -> bytes:
        lines = self._lines.feed(shown) if self._lines else shown
        self._colours.follow(lines)
        return lines


class LogStreams:
    """The logs of the jobs of a run; with several jobs a prefix `[workflow] ` names the job of each line."""

    def __init__(self, *, prefixed: bool, whole_lines: bool = False) -> None:
        self._prefixed = prefixed
        self._whole_lines = whole_lines
        self._streams: dict[str, LogStream] = {}
        self._coloured = False

    def feed(self, workflow: str, data: bytes) -> bytes:
        """The bytes to show after `data` of this job."""
        stream = self._streams.get(workflow)
        if stream is None:
            prefix = f"[{workflow}] " if self._prefixed else ""
            stream = self._streams[workflow] = LogStream(prefix, whole_lines=self._whole_lines)
        shown = stream.feed(data)
        self._coloured = self._coloured or b"\x1b" in shown
        return shown

    def finish(self, workflow: str) -> bytes:
        """The rest of this job's log; the job may begin again afterwards (another attempt)."""
        stream = self._streams.pop(workflow, None)
        return stream.finish() if stream else b""

    def finish_all(self) -> bytes:
        """The rest of all logs."""
        return b"".join(self.finish(workflow) for workflow in list(self._streams))

    def leave_unread(self) -> None:
        """Give the terminal back without colours, when any log was coloured and the reader of the output is gone."""
        if self._coloured:
            restore_beside()
