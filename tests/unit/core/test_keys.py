"""Names of a list that no dstack writes are no numbers of anything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dstack.core.format.keys import numbers


def test_numbers_are_read_from_names_and_whole_keys() -> None:
    assert numbers(["000010/", "x/claim/000002", "000001"]) == [1, 2, 10]


@given(st.lists(st.text(max_size=8) | st.sampled_from(["²²²²²²", "٣٣٣٣٣٣", "9" * 5000, "-00001", "00001", "000003"])))
def test_whatever_a_list_names_nothing_is_raised(names: list[str]) -> None:
    assert all(0 <= number < 10**6 for number in numbers(names))
