"""Ids of runs sort by time, and are told from other names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.core.format.identifiers import inverted, is_name, is_run_id, run_id

TIMES = st.integers(1, 10**13 - 1)
TAILS = st.from_regex(r"[a-z2-7]{10}", fullmatch=True)


@given(TIMES, TIMES, TAILS, TAILS)
def test_a_later_run_sorts_first(one: int, other: int, tail: str, other_tail: str) -> None:
    if one != other:
        assert (run_id(one, tail) < run_id(other, other_tail)) == (one > other)


@given(st.integers(-(10**15), 10**15), TAILS)
def test_an_id_made_at_any_time_is_an_id_and_a_name(milliseconds: int, tail: str) -> None:
    assert is_run_id(run_id(milliseconds, tail))
    assert is_name(run_id(milliseconds, tail))


@given(st.integers(-(10**15), 10**15))
def test_a_time_without_a_place_is_the_nearest(milliseconds: int) -> None:
    assert len(inverted(milliseconds)) == 13
    assert inverted(10**13) <= inverted(milliseconds) <= inverted(1)


@pytest.mark.parametrize(
    "text", ["calm-otter-7", "8204478254473", "8204478254473-", "8204478254473-a\n", "٨204478254473-abc", "", "../x"]
)
def test_anything_else_is_no_run_id(text: str) -> None:
    assert not is_run_id(text)


@pytest.mark.parametrize("text", ["-x", ".x", "a/b", "a b", "", "x" * 101, "a\n", "ä"])
def test_what_could_be_read_as_an_option_a_path_or_two_words_is_no_name(text: str) -> None:
    assert not is_name(text)
