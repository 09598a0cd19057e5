"""A name leads to the run for which it was written, and to no other object."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.core.format.identifiers import run_id
from dstack.core.format.name_records import decode_name, encode_name


@given(st.integers(1, 10**13 - 1), st.from_regex(r"[a-z2-7]{10}", fullmatch=True))
def test_a_name_is_read_as_it_was_written(milliseconds: int, tail: str) -> None:
    run = run_id(milliseconds, tail)
    assert decode_name(encode_name(run)) == run


@pytest.mark.parametrize("value", [[], {}, "x", None, 7, {"run": 7}, {"run": "calm-otter-7"}, {"run": "../../x"}])
def test_any_other_json_is_no_name(value: object) -> None:
    assert decode_name(json.dumps(value).encode()) is None


@given(st.binary(max_size=40))
def test_any_other_bytes_are_no_name(body: bytes) -> None:
    assert decode_name(body) is None


def test_json_of_any_depth_is_no_name() -> None:
    assert decode_name(b"[" * 100_000) is None
