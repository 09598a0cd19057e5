"""Since when hosts have not answered, by this coordinator's own clocks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from dstack.app.protocol.lease import SILENCE

ASKING_GAP_S = SILENCE / 3
"""Seconds that count at most between two vain questions: of a longer time in which nothing was asked, as when this
process was stopped, nobody knows what the host would have answered."""


@dataclass(slots=True)
class _HostSilence:
    asked: float
    """When it was asked last, by a clock that is never set."""
    at: float
    """The time of day at which it began, in seconds since the epoch."""
    why: str = ""
    seconds: float = 0.0


class Silences:
    """The silence of each host, from the first vain question to the next answer. `clock` gives seconds.

    A host is known by whatever text the caller asks after: its name, or the nonce of an attempt on it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._silent: dict[str, _HostSilence] = {}

    def vain(self, nonce: str, why: str) -> bool:
        """No answer came -> whether that reason is news."""
        now = self._clock()
        silence = self._silent.setdefault(nonce, _HostSilence(now, time.time()))
        silence.seconds += min(now - silence.asked, ASKING_GAP_S)
        silence.asked = now
        known, silence.why = silence.why, why
        return known != why

    def answered(self, nonce: str) -> None:
        self._silent.pop(nonce, None)

    def of(self, nonce: str) -> tuple[float, str]:
        """Seconds of silence up to the last question, and since when for people."""
        silence = self._silent.get(nonce) or _HostSilence(self._clock(), time.time())
        return silence.seconds, time.strftime("%H:%M", time.localtime(silence.at))

    def all(self) -> dict[str, float]:
        """The time of day at which each silence began that lasts, by the nonce of the attempt."""
        return {str(nonce): silence.at for nonce, silence in self._silent.items()}
