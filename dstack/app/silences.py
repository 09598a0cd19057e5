"""Since when hosts have not answered, by this coordinator's own clocks."""

from __future__ import annotations

import time
from dataclasses import dataclass

from dstack.model import Nonce


@dataclass(slots=True)
class _Silence:
    began: float
    at: float
    """The time of day, in seconds since the epoch."""
    why: str = ""


class Silences:
    """The silence of each attempt's host, from the first vain question to the next answer."""

    def __init__(self) -> None:
        self._silent: dict[Nonce, _Silence] = {}

    def vain(self, nonce: Nonce, why: str) -> bool:
        """No answer came -> whether that reason is news."""
        silence = self._silent.setdefault(nonce, _new())
        known, silence.why = silence.why, why
        return known != why

    def answered(self, nonce: Nonce) -> None:
        self._silent.pop(nonce, None)

    def of(self, nonce: Nonce) -> tuple[float, str]:
        """Seconds of silence so far, and since when for people."""
        silence = self._silent.get(nonce) or _new()
        return time.monotonic() - silence.began, time.strftime("%H:%M", time.localtime(silence.at))

    def all(self) -> dict[str, float]:
        """The time of day at which each silence began that lasts, by the nonce of the attempt."""
        return {str(nonce): silence.at for nonce, silence in self._silent.items()}


def _new() -> _Silence:
    return _Silence(time.monotonic(), time.time())
