"""Whether a job is tried again after the ends of its attempts: pure decisions over records."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from dstack.core.lifecycle import TRIED_ENDS, AttemptEnd
from dstack.model import Retry


class NextStep(Enum):
    """The next step of a run after attempts of a job have ended since the run began to wait for the job."""

    CLAIM = "claim"
    """Another attempt is made."""
    LOOK = "look"
    """An attempt succeeded meanwhile: its result is in the bucket by now."""
    FAILED = "failed"
    LOST = "lost"


def after_attempts(ends: Sequence[str], retry: Retry, *, max_void: int) -> NextStep:
    """CLAIM while nothing speaks against another attempt; else how the job ended for this run.

    `ends` are the statuses of the attempts since this run came, oldest first. A failure after the run's arrival is the
    run's outcome too, unless `retry` covers the failure. A stopped attempt was stopped for another run, because a run
    with a stop request of its own never gets here; such an attempt counts for nothing. A void attempt counts only when
    `max_void` void attempts follow one another.
    """
    # Superseded too: another attempt of the generation had committed a result.
    if AttemptEnd.SUCCEEDED in ends or AttemptEnd.SUPERSEDED in ends:
        return NextStep.LOOK
    if len(ends) >= max_void and all(end == AttemptEnd.VOID for end in ends[-max_void:]):
        return NextStep.FAILED
    tried = [end for end in ends if end in TRIED_ENDS]
    if not tried:
        return NextStep.CLAIM
    if len(tried) < retry.attempts and tried[-1] in retry.on:
        return NextStep.CLAIM
    return NextStep.LOST if tried[-1] == AttemptEnd.LOST else NextStep.FAILED


def may_try_again(ends: Sequence[str], retry: Retry) -> bool:
    """Whether `retry` permits one more attempt where the present attempt is called lost because its host is silent.

    `ends` are the statuses of the earlier attempts since this run came.
    """
    # The present attempt will count as tried once it is called lost.
    tried = sum(end in TRIED_ENDS for end in ends) + 1
    return AttemptEnd.LOST in retry.on and tried < retry.attempts
