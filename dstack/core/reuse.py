"""What a run does about a job, given what others did: pure decisions over records."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from dstack.model import Retry


class Next(Enum):
    """What follows from the attempts that ended since a run began to wait for a job."""

    CLAIM = "claim"
    LOOK = "look"
    """One succeeded meanwhile: its result is there by now."""
    FAILED = "failed"
    LOST = "lost"


def after_attempts(ends: Sequence[str], retry: Retry, *, max_void: int) -> Next:
    """CLAIM while nothing speaks against another attempt; else how the job ended for this run.

    `ends` are the statuses of the attempts since this run came, oldest first. A failure that came later than the run is
    its outcome too, unless its `retry` covers it. An attempt that was stopped was stopped for somebody else (a run that
    asked for the stop itself never gets here) and counts for nothing; one that never started counts only when
    `max_void` of them follow one another.
    """
    if "succeeded" in ends or "superseded" in ends:
        return Next.LOOK
    if len(ends) >= max_void and all(end == "void" for end in ends[-max_void:]):
        return Next.FAILED
    tried = [end for end in ends if end in ("failed", "lost", "interrupted")]
    if not tried:
        return Next.CLAIM
    if len(tried) < retry.attempts and tried[-1] in retry.on:
        return Next.CLAIM
    return Next.LOST if tried[-1] == "lost" else Next.FAILED


def may_try_again(ends: Sequence[str], retry: Retry) -> bool:
    """Whether one more attempt may be made when the present one is called lost without anybody's word: `ends` are the
    statuses of those before it since this run came."""
    tried = sum(end in ("failed", "lost", "interrupted") for end in ends) + 1
    return "lost" in retry.on and tried < retry.attempts
