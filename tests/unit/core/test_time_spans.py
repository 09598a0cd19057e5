"""Spans between clocks: a number of seconds only where both clocks can be right."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dstack.core.time_spans import CLOCK_SKEW_S, LONGEST_SPAN_S, seconds_between

TIMES = st.floats(0, 4e9)


@given(TIMES, TIMES)
def test_a_span_is_never_negative_and_absent_where_a_clock_is_wrong(began: float, now: float) -> None:
    found = seconds_between(began, now)
    assert (found is None) == (not -CLOCK_SKEW_S <= now - began <= LONGEST_SPAN_S)
    if found is not None:
        assert found == max(0.0, now - began)


@given(st.floats(), st.floats())
def test_numbers_that_are_no_times_give_no_span_that_nothing_takes(began: float, now: float) -> None:
    found = seconds_between(began, now)
    assert found is None or 0 <= found <= LONGEST_SPAN_S
