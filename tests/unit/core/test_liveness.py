"""When a coordinator counts as late or dead, and how short tests may make that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.core.liveness import (
    LONGEST_SILENCE_S,
    SHORTEST_SILENCE_S,
    SILENT_READS,
    is_overdue,
    is_silent,
    observe,
    silence_of,
)


def test_silence_needs_its_seconds_and_its_reads() -> None:
    seen = observe(None, b"beat", 0.0)
    assert not is_silent(seen, 10.0, after=5.0), "one read shows nothing"
    assert is_overdue(seen, 5.0, after=5.0)
    assert not is_overdue(seen, 4.9, after=5.0)
    for _ in range(SILENT_READS - 1):
        seen = observe(seen, b"beat", 1.0)
    assert is_silent(seen, 5.0, after=5.0)
    assert not is_silent(seen, 4.9, after=5.0)
    assert not is_silent(observe(seen, b"another", 5.0), 5.0, after=5.0)


@pytest.mark.parametrize(
    ("text", "seconds"), [("6", 6.0), ("2.5", 2.5), ("120", LONGEST_SILENCE_S), ("2", SHORTEST_SILENCE_S)]
)
def test_a_test_may_shorten_the_silence(text: str, seconds: float) -> None:
    assert silence_of(text) == seconds


@given(st.text() | st.floats().map(str) | st.integers().map(str))
def test_nothing_makes_the_silence_longer_or_too_short(text: str) -> None:
    assert SHORTEST_SILENCE_S <= silence_of(text) <= LONGEST_SILENCE_S


@pytest.mark.parametrize(
    "text", ["", " 6", "6 ", "6s", "-6", "+6", "1e1", "1e999", "nan", "inf", "0", "1.99", "121", "٦", "6\n", "0x6"]
)
def test_any_other_text_leaves_the_usual_silence(text: str) -> None:
    assert silence_of(text) == LONGEST_SILENCE_S
