"""Names of runs: short words to say aloud, and as many as there are choices."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from dstack.core.format.identifiers import is_name, is_run_id
from dstack.core.run_names import ADJECTIVES, ANIMALS, NAME_COUNT, run_name

CHOICES = st.integers(0, NAME_COUNT - 1)


def test_the_words_are_distinct_and_short() -> None:
    for words in (ADJECTIVES, ANIMALS):
        assert len(set(words)) == len(words) >= 60
        assert all(re.fullmatch("[a-z]{2,9}", word) for word in words)


@given(CHOICES, CHOICES)
def test_two_choices_give_two_names(one: int, other: int) -> None:
    assert (run_name(one) == run_name(other)) == (one == other)


@given(st.integers(0, 2**64))
def test_any_number_is_a_choice_and_gives_a_name_that_is_no_id(choice: int) -> None:
    name = run_name(choice)
    assert re.fullmatch(r"[a-z]+-[a-z]+-[1-9][0-9]?", name)
    assert is_name(name)
    assert not is_run_id(name)
    assert name == run_name(choice + NAME_COUNT)
