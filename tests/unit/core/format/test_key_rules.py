"""Which strings are keys: none leads out of the folder of a bucket, or into the bucket's own files."""

from __future__ import annotations

import os.path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.core.format.key_rules import (
    MAX_KEY,
    MAX_KEY_PART,
    RESERVED_PREFIX,
    check_key,
    check_prefix,
    check_range,
    is_key,
    is_part,
)
from dstack.errors import BucketError

TEXTS = st.text("ab./\\~\n\0 =+@-_é", max_size=12) | st.text(max_size=8)


@given(TEXTS)
def test_a_key_stays_below_any_folder_on_any_file_system(text: str) -> None:
    if is_key(text):
        assert os.path.normpath(f"/bucket/{text}") == f"/bucket/{text}"
        assert text.isascii()
        assert text.isprintable()
        assert all(is_part(part) for part in text.split("/"))
        assert check_key(text) == text
        assert check_prefix(f"{text}/") == f"{text}/"
    else:
        with pytest.raises(BucketError):
            check_key(text)


@pytest.mark.parametrize(
    "key",
    ["", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", f"{RESERVED_PREFIX}x", "a b", "a\n", "x" * (MAX_KEY_PART + 1)],
)
def test_these_are_no_keys(key: str) -> None:
    assert not is_key(key)


def test_a_key_is_at_most_as_long_as_every_store_takes() -> None:
    part = "x" * (MAX_KEY_PART - 1)
    longest = "/".join([part] * 4 + ["y" * (MAX_KEY - 4 * MAX_KEY_PART)])
    assert len(longest) == MAX_KEY
    assert is_key(longest)
    assert not is_key(f"{longest}y")


@pytest.mark.parametrize("prefix", ["a", "a/b", "/", "../", ".tmp/"])
def test_a_prefix_is_a_whole_folder_of_keys(prefix: str) -> None:
    with pytest.raises(BucketError, match="folder of keys"):
        check_prefix(prefix)
    assert check_prefix("") == ""


@given(st.integers(), st.integers())
def test_a_range_that_no_object_can_have_is_refused(offset: int, length: int) -> None:
    if offset >= 0 and length >= 0 and offset + length < 1 << 63:
        check_range("a", offset, length)
    else:
        with pytest.raises(BucketError):
            check_range("a", offset, length)
