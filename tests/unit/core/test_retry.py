"""What follows from the ends of attempts: another attempt only where `retry` says so, or where none counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.core.lifecycle import TRIED_ENDS, AttemptEnd
from dstack.core.retry import NextStep, after_attempts, may_try_again
from dstack.model import Retry

ENDS = st.lists(st.sampled_from([str(end) for end in AttemptEnd]), max_size=8)
RETRIES = st.builds(
    Retry,
    attempts=st.integers(1, 4),
    on=st.lists(st.sampled_from([str(end) for end in TRIED_ENDS]), unique=True).map(tuple),
)
NEVER = Retry()
MAX_VOID = 3


def after(*ends: str, retry: Retry = NEVER) -> NextStep:
    return after_attempts(ends, retry, max_void=MAX_VOID)


def test_a_job_without_attempts_is_claimed() -> None:
    assert after() is NextStep.CLAIM


@given(ENDS, RETRIES)
def test_a_success_is_looked_for_whatever_else_happened(ends: list[str], retry: Retry) -> None:
    done = "succeeded" in ends or "superseded" in ends
    assert (after(*ends, retry=retry) is NextStep.LOOK) == done


@given(st.lists(st.sampled_from(["stopped", "void"]), max_size=MAX_VOID - 1))
def test_attempts_that_were_stopped_for_others_or_never_began_count_for_nothing(ends: list[str]) -> None:
    assert after(*ends) is NextStep.CLAIM


def test_many_that_never_began_in_a_row_are_a_failure() -> None:
    assert after("void", "void", "void") is NextStep.FAILED
    assert after("void", "void", "stopped", "void", "void") is NextStep.CLAIM


@pytest.mark.parametrize(("end", "step"), [("failed", "FAILED"), ("lost", "LOST"), ("interrupted", "FAILED")])
def test_without_retry_the_first_try_decides(end: str, step: str) -> None:
    assert after(end) is NextStep[step]
    assert after(end, "stopped") is NextStep[step]


def test_retry_covers_the_named_ends_up_to_its_number() -> None:
    retry = Retry(attempts=3, on=("lost",))
    assert after("lost", "lost", retry=retry) is NextStep.CLAIM
    assert after("lost", "lost", "lost", retry=retry) is NextStep.LOST
    assert after("lost", "failed", retry=retry) is NextStep.FAILED
    assert after("failed", "lost", retry=retry) is NextStep.CLAIM, "the last try decides"


@given(ENDS, RETRIES)
def test_no_more_attempts_are_made_than_retry_permits(ends: list[str], retry: Retry) -> None:
    tried = sum(end in TRIED_ENDS for end in ends)
    if tried and after(*ends, retry=retry) is NextStep.CLAIM:
        assert tried < retry.attempts


@given(ENDS, RETRIES)
def test_an_attempt_is_called_lost_by_silence_only_where_another_is_made(ends: list[str], retry: Retry) -> None:
    """A lost attempt that no other follows would end the job, though it may be about to succeed."""
    if may_try_again(ends, retry) and not {"succeeded", "superseded"} & set(ends):
        assert after(*ends, "lost", retry=retry) is NextStep.CLAIM
    if "lost" not in retry.on:
        assert not may_try_again(ends, retry)
