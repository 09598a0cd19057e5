"""The times of day of a beginning and an end, right by one another also when the clock is set meanwhile."""

import time
from typing import Callable

_BOOT = getattr(time, "CLOCK_BOOTTIME", None)
"""A clock that is never set and goes on while the machine sleeps; Linux has such a clock."""


def steady() -> float:
    """Seconds of a clock that is never set."""
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
