"""The screen of a coordinator that nobody watches: one line for each change, on standard output."""

from __future__ import annotations

import sys
import time


class LogScreen:
    """Implements `Screen`."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, str]] = {}

    def job(self, workflow: str, status: str, host: str, note: str, took: float = 0.0) -> None:
        line = " ".join(part for part in (workflow, status, host, note) if part)
        last = self._last.get(workflow, ("", ""))
        # What a job still waits for changes with every input that comes: it is said once.
        if line != last[1] and not last[0] == status == "waiting":
            self._last[workflow] = (status, line)
            self.message(line)

    def log(self, workflow: str, data: bytes) -> None:
        """Nobody watches: the log is in the bucket."""

    def progress(self, label: str, done: int, total: int) -> None:
        """Nobody watches."""

    def message(self, text: str) -> None:
        """A line that the disk does not take is left out: no job may end because of it."""
        try:
            sys.stdout.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
            sys.stdout.flush()
        except OSError:
            return
