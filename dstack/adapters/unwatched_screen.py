"""The screen of an unwatched coordinator: a line on standard output for each change."""

from __future__ import annotations

import sys
import time


class LogScreen:
    """Implements `Screen`."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, str]] = {}

    def job(
        self, workflow: str, status: str, host: str, note: str, took: float = 0.0, *, reused_from: str = ""
    ) -> None:
        origin = f"from {reused_from}" if reused_from else ""
        line = " ".join(part for part in (workflow, status, host, origin or note) if part)
        last = self._last.get(workflow, ("", ""))
        # What a job still waits for changes with every input that comes: it is said once.
        if line != last[1] and not last[0] == status == "waiting":
            self._last[workflow] = (status, line)
            self.message(line)

    def log(self, workflow: str, data: bytes) -> None:
        """Nothing: the bucket has the log."""

    def progress(self, label: str, done: int, total: int) -> None:
        """Nothing: no progress without a watcher."""

    def message(self, text: str) -> None:
        """Write a line. A full disk loses the line, and ends no job."""
        try:
            sys.stdout.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
            sys.stdout.flush()
        except OSError:
            return
