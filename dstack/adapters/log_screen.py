"""The screen of a coordinator that nobody watches: one line for each change, on standard output."""

from __future__ import annotations

import sys
import time


class LogScreen:
    """Implements `Screen`."""

    def job(self, workflow: str, status: str, host: str, note: str, took: float = 0.0) -> None:
        self.message(" ".join(part for part in (workflow, status, host, note) if part))

    def log(self, workflow: str, data: bytes) -> None:
        """Nobody watches: the log is in the bucket."""

    def progress(self, label: str, done: int, total: int) -> None:
        """Nobody watches."""

    def message(self, text: str) -> None:
        sys.stdout.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        sys.stdout.flush()
