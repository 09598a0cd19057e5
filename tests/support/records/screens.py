"""A screen that keeps what it was told."""

from __future__ import annotations


class Seen:
    """Implements `Screen`: keeps what it was told of jobs."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, str, str, float]] = []

    def job(
        self, workflow: str, status: str, host: str, note: str, took: float = 0.0, *, reused_from: str = ""
    ) -> None:
        self.jobs.append((status, host, note, took))

    def log(self, workflow: str, data: bytes) -> None: ...
    def progress(self, label: str, done: int, total: int) -> None: ...
    def message(self, text: str) -> None: ...
