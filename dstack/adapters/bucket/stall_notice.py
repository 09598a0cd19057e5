"""A bucket that reports a silent store. A request pays for a reading of the clock and two locks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from dstack.ports import Bucket, Listed, Put

T = TypeVar("T")
FIRST_NOTICE_S = 10.0
SECOND_NOTICE_S = 60.0
LATER_NOTICES_S = 300.0
"""Seconds without an answer at the first notice and the second notice, and between all later notices."""
WATCH_INTERVAL_S = 1.0
"""Seconds between two looks while a request is open."""
_READ, _LIST, _WRITE = "read", "list", "write"
_REQUEST_KINDS = (_READ, _LIST, _WRITE)
"""Each is silent for itself: a store whose disk is full may answer reads and let writes hang."""


@dataclass(slots=True)
class _Stall:
    """A stall of one kind of request: its beginning and the time of the next notice, by the same clock."""

    since: float
    due: float


def _pause() -> None:
    time.sleep(WATCH_INTERVAL_S)


class StallNoticeBucket:
    """Implements `Bucket` by another bucket, and reports a store that does not answer.

    Calls `say`, from any thread, after a request was open for FIRST_NOTICE_S seconds, again for as long as the stall
    lasts, and with the first answer to a request of the same kind afterwards. A failed request, and a request with an
    unknown outcome, are no answers. Bulk data count for nothing here: they take long, and show their own progress. An
    error of `say` is ignored.
    """

    def __init__(
        self,
        bucket: Bucket,
        label: str,
        say: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[], None] = _pause,
    ) -> None:
        self._bucket = bucket
        self._label = label
        self._say = say
        self._clock = clock
        self._pause = pause
        self._open: dict[object, tuple[str, float]] = {}
        self._silences: dict[str, _Stall] = {}
        self._lock = threading.Lock()
        # Held while something is said, so that lines come in their order and requests never wait for who reads them.
        self._saying = threading.Lock()
        self._busy = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def trouble(self) -> str:
        return self._bucket.trouble or f"{self._label} does not say why"

    def create(self, key: str, body: bytes) -> Put:
        return self._request(_WRITE, lambda: self._bucket.create(key, body))

    def create_from(self, key: str, chunks: Iterable[bytes]) -> Put:
        return self._bucket.create_from(key, chunks)

    def put(self, key: str, body: bytes) -> None:
        self._request(_WRITE, lambda: self._bucket.put(key, body))

    def get(self, key: str) -> bytes | None:
        return self._request(_READ, lambda: self._bucket.get(key))

    def read(self, key: str, offset: int, length: int) -> Iterator[bytes]:
        return self._bucket.read(key, offset, length)

    def list(self, prefix: str, *, limit: int | None = None) -> Sequence[str]:
        return self._request(_LIST, lambda: self._bucket.list(prefix, limit=limit))

    def survey(self, prefix: str) -> Iterator[Listed]:
        return self._bucket.survey(prefix)

    def children(self, prefix: str, *, limit: int | None = None, after: str = "") -> Sequence[str]:
        return self._request(_LIST, lambda: self._bucket.children(prefix, limit=limit, after=after))

    def delete(self, key: str) -> None:
        self._request(_WRITE, lambda: self._bucket.delete(key))

    def give_notices(self) -> None:
        """Give the notices due now."""
        with self._saying:
            with self._lock:
                lines = self._due_notices()
            for line in lines:
                self._tell(line)

    def _request(self, kind: str, request: Callable[[], T]) -> T:
        # Not the key: several threads may read the same key at once.
        ticket = object()
        with self._lock:
            self._open[ticket] = (kind, self._clock())
            self._busy.set()
            if self._watcher is None:
                # Started with the first request: a command that never asks the bucket pays for no thread.
                self._watcher = threading.Thread(target=self._watch, name="dstack-waiting", daemon=True)
                self._watcher.start()
        answered = False
        try:
            answer = request()
            answered = answer is not Put.UNKNOWN
            return answer
        finally:
            with self._lock:
                del self._open[ticket]
                is_news = answered and kind in self._silences
            if is_news:
                self._note_answer(kind)

    def _note_answer(self, kind: str) -> None:
        with self._saying:
            with self._lock:
                now = self._clock()
                if kind not in self._silences or self._oldest(kind, now) <= now - FIRST_NOTICE_S:
                    return
                silence = self._silences.pop(kind)
            self._tell(f"{self._label} answers {kind}s again after {_duration(now - silence.since)}")

    def _tell(self, line: str) -> None:
        with suppress(OSError, ValueError):
            self._say(line)

    def _watch(self) -> None:
        while True:
            self._busy.wait()
            self._pause()
            self.give_notices()
            with self._lock:
                if not self._open:
                    self._busy.clear()

    def _due_notices(self) -> Sequence[str]:
        now = self._clock()
        lines = []
        for kind in _REQUEST_KINDS:
            oldest = self._oldest(kind, now)
            if oldest > now - FIRST_NOTICE_S:
                continue
            silence = self._silences.setdefault(kind, _Stall(since=oldest, due=now))
            if silence.due <= now:
                waited = now - silence.since
                lines.append(f"{self._label} has not answered a {kind} for {_duration(waited)}; dstack goes on trying")
                silence.due = silence.since + _next_notice(waited)
        return lines

    def _oldest(self, kind: str, now: float) -> float:
        """The beginning of the oldest open request of the kind, `now` without any; the caller holds the lock."""
        return min((since for other, since in self._open.values() if other == kind), default=now)


def _next_notice(waited: float) -> float:
    """Seconds from the beginning of a stall to the notice after `waited` seconds."""
    return (
        SECOND_NOTICE_S
        if waited < SECOND_NOTICE_S
        else SECOND_NOTICE_S + LATER_NOTICES_S * ((waited - SECOND_NOTICE_S) // LATER_NOTICES_S + 1)
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds // 60:.0f} min"
