"""Large files: cut into pieces without gaps, each under a name that says what is in it."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.core.artifacts.pieces import MAX_PIECES, are_pieces, names_of, pack_name, pieces_of
from dstack.model import Entry, EntryKind


def sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def cut(body: bytes, piece: int) -> Entry:
    parts = [body[at : at + piece] for at in range(0, len(body), piece)]
    return Entry(
        path="big", kind=EntryKind.FILE, mode=0o644, size=len(body), sha256=sha(body), piece=piece,
        pieces=tuple(map(sha, parts)),
    )  # fmt: skip


@given(st.binary(min_size=2, max_size=64), st.integers(1, 32))
def test_the_pieces_of_a_file_are_its_bytes_in_order(body: bytes, piece: int) -> None:
    entry = cut(body, piece)
    count = len(entry.pieces)
    assert are_pieces(len(body), piece, count) == (count >= 2)
    if count < 2:
        return
    found = pieces_of(entry)
    assert sum(each.size for each in found) == entry.size
    assert [each.sha256 for each in found] == list(entry.pieces)
    assert [each.pack for each in found] == list(names_of(entry.size, piece, entry.pieces))
    assert [each.pack for each in found] == [pack_name([(each.sha256, each.size)]) for each in found]


@given(st.integers(1, 10**6), st.integers(1, 10**4), st.integers(0, MAX_PIECES + 2))
def test_a_number_of_pieces_that_leaves_a_gap_or_an_empty_piece_is_refused(size: int, piece: int, count: int) -> None:
    assert are_pieces(size, piece, count) == (2 <= count <= MAX_PIECES and count == -(-size // piece))


def test_a_file_that_was_not_cut_has_no_pieces() -> None:
    assert pieces_of(Entry(path="small", kind=EntryKind.FILE, mode=0o644, size=1, sha256=sha(b"x"))) == ()


@pytest.mark.parametrize("other", [[("a" * 64, 2)], [("b" * 64, 1)], [("a" * 64, 1), ("a" * 64, 1)], []])
def test_a_name_says_content_and_size(other: list[tuple[str, int]]) -> None:
    assert pack_name(other) != pack_name([("a" * 64, 1)])
