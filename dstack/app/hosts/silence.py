"""Since when hosts have not answered, by this coordinator's own clocks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from dstack.app.protocol.lease import SILENCE_S

ASKING_GAP_S = SILENCE_S / 3
"""The most seconds to count between two unanswered questions: a longer time without questions, as while this process
was stopped, says nothing of the host."""


@dataclass(slots=True)
class _HostSilence:
    asked: float
    """The time of the last question, by a clock without jumps."""
    at: float
    """The time of day at the beginning of the silence, in seconds since the epoch."""
    why: str = ""
    seconds: float = 0.0


class Silences:
    """The silence of each host, from the first unanswered question to the next answer. `clock` gives seconds.

    A host is known by any text of the caller: its name, or the nonce of an attempt there.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._silent: dict[str, _HostSilence] = {}

    def note_no_answer(self, nonce: str, why: str) -> bool:
        """No answer came -> whether that reason is news."""
        now = self._clock()
        silence = self._silent.setdefault(nonce, _HostSilence(now, time.time()))
        # Time in which nobody asked does not count: the host may have been there.
        silence.seconds += min(now - silence.asked, ASKING_GAP_S)
        silence.asked = now
        known, silence.why = silence.why, why
        return known != why

    def note_answer(self, nonce: str) -> None:
        self._silent.pop(nonce, None)

    def of(self, nonce: str) -> tuple[float, str]:
        """Seconds of silence up to the last question, and since when for people."""
        silence = self._silent.get(nonce) or _HostSilence(self._clock(), time.time())
        return silence.seconds, time.strftime("%H:%M", time.localtime(silence.at))

    def beginnings(self) -> dict[str, float]:
        """The time of day at the beginning of each lasting silence, by the nonce of the attempt."""
        return {str(nonce): silence.at for nonce, silence in self._silent.items()}
