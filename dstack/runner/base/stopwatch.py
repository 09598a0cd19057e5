"""The time of day at which something began and ended, right by one another whatever is done to the clock meanwhile."""

import time
from typing import Callable

_BOOT = getattr(time, "CLOCK_BOOTTIME", None)
"""A clock that nobody sets and that goes on while the machine sleeps; Linux has it."""


def steady() -> float:
    """Seconds of a clock that nobody sets."""
    return time.monotonic() if _BOOT is None else time.clock_gettime(_BOOT)


class Stopwatch:
    """Begins when it is made."""

    def __init__(self, wall: Callable[[], float] = time.time, even: Callable[[], float] = steady) -> None:
        self.began = wall()
        """Seconds since the epoch."""
        self._even = even
        self._start = even()

    def now(self) -> float:
        """Seconds since the epoch by the clock as it was at the beginning; never before the beginning."""
        return self.began + max(0.0, self._even() - self._start)
