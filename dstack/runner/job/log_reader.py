"""Reads a job's log while the log grows."""

from __future__ import annotations

import os
import time
from typing import Callable, Iterator

from dstack.runner.base.spool import Attempt
from dstack.wire import CHUNK_BYTES, HELD, RUNNING

FIRST_PAUSE_S = 0.002
MAX_PAUSE_S = 0.04
"""Seconds between two reads of a log without growth: the longest delay of a line."""
LIFE_CHECK_S = 1.0
"""Seconds between two looks for a living process of the attempt."""


def follow(attempt: Attempt, offset: int, pause: Callable[[float], bool]) -> Iterator[bytes]:
    """The log from byte `offset` in pieces of at most CHUNK, as the log grows. Ends when the attempt has ended (or
    vanished, or never started) and every byte was handed out, or when `pause(seconds)` reports that the reader is
    gone."""
    fd = _open(attempt, pause)
    if fd < 0:
        return
    try:
        delay = FIRST_PAUSE_S
        looked = float("-inf")
        over = False
        while True:
            data = os.pread(fd, CHUNK_BYTES, offset)
            if data:
                offset += len(data)
                delay = FIRST_PAUSE_S
                yield data
                continue
            if over or pause(delay):
                return
            delay = min(delay * 1.5, MAX_PAUSE_S)
            # What was written before the end is in the file by now: one more round reads it, then stops.
            over = os.path.exists(attempt.exit)
            if not over and time.monotonic() - looked > LIFE_CHECK_S:
                looked = time.monotonic()
                over = attempt.state() not in (HELD, RUNNING)
    finally:
        os.close(fd)


def await_end(attempt: Attempt, pause: Callable[[float], bool]) -> None:
    """Return when the attempt has ended (or vanished, or never started), or when `pause(seconds)` reports that the
    waiting side is gone."""
    delay, looked = FIRST_PAUSE_S, float("-inf")
    while not os.path.exists(attempt.exit):
        if time.monotonic() - looked > LIFE_CHECK_S:
            looked = time.monotonic()
            if attempt.state() not in (HELD, RUNNING):
                return
        if pause(delay):
            return
        delay = min(delay * 1.5, MAX_PAUSE_S)


def _open(attempt: Attempt, pause: Callable[[float], bool]) -> int:
    """The log's descriptor; -1 when there is no log and none will come."""
    while True:
        # The state first: a supervisor may make the log and end between the two looks, and the log would be missed.
        state = attempt.state()
        try:
            return os.open(attempt.log, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if state not in (HELD, RUNNING) or pause(MAX_PAUSE_S):
                return -1
