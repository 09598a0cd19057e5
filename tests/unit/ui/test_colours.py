"""Logs leave a terminal, a prefix and one another as they were; judged by a small terminal of the test's own."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from dstack.ui.logstream import LogStreams

SGR = re.compile(rb"\x1b\[([0-9;:]*)m")
PIECES = [b"a", b"b\n", b"\n", b"\x1b[31m", b"\x1b[8m", b"\x1b[0m", b"\x1b[m", b"\x1b[38;5;0m", b"\x1b[0;1m", b"\x1b[",
          b"7m", b"\x1b", b"\r", b"\xc3", b"\xa4"]  # fmt: skip
LOG = st.lists(st.sampled_from(PIECES), max_size=12)


def looks(shown: bytes) -> tuple[list[tuple[str, tuple[str, ...]]], tuple[str, ...]]:
    """A terminal: each character with the colours that it is drawn in -> those, and what is on at the end."""
    drawn: list[tuple[str, tuple[str, ...]]] = []
    on: tuple[str, ...] = ()
    position = 0
    for found in [*SGR.finditer(shown), None]:
        text = shown[position : found.start() if found else len(shown)].decode()
        drawn += [(char, on) for char in text]
        if found:
            position = found.end()
            code = found[1].decode()
            # All of these sequences are one thing, but for those that begin with a reset.
            on = () if code in ("", "0") else (code[2:],) if code.startswith("0;") else (*on, code)
    return drawn, on


def given_by(pieces: list[tuple[str, bytes]], *, prefixed: bool, whole_lines: bool) -> bytes:
    streams = LogStreams(prefixed=prefixed, whole_lines=whole_lines)
    return b"".join(streams.feed(name, data) for name, data in pieces) + streams.finish_all()


@given(LOG)
@example([b"\x1b[8m", b"a", b"\x1b[31m", b"b\n"])
def test_one_log_is_drawn_as_it_was_written_and_leaves_no_colour(log: list[bytes]) -> None:
    shown = given_by([("w", piece) for piece in log], prefixed=False, whole_lines=False)
    drawn, on = looks(shown)
    assert on == ()
    if not SGR.search(shown):
        assert b"\x1b" not in shown
    lines = given_by([("w", piece) for piece in log], prefixed=False, whole_lines=True)
    by_line, on = looks(lines)
    assert on == ()
    # Newlines have no colour; the last line has gained one.
    assert [each for each in by_line if each[0] != "\n"] == [each for each in drawn if each[0] != "\n"]


@given(st.lists(st.tuples(st.sampled_from("vw"), st.sampled_from(PIECES)), max_size=20))
@example([("v", b"\x1b[31m"), ("v", b"b\n"), ("w", b"a"), ("w", b"\n"), ("v", b"a"), ("v", b"\n")])
def test_no_log_colours_another_or_the_prefix(pieces: list[tuple[str, bytes]]) -> None:
    mixed = given_by(pieces, prefixed=True, whole_lines=True)
    assert looks(mixed)[1] == ()
    for line in mixed.splitlines(keepends=True):
        drawn, on = looks(line)
        assert on == ()
        assert [colours for _, colours in drawn[:4]] == [()] * 4
        assert drawn[-1] == ("\n", ())
    for name in "vw":
        alone = given_by([piece for piece in pieces if piece[0] == name], prefixed=True, whole_lines=True)
        mine = [line for line in mixed.splitlines() if line.startswith(f"[{name}] ".encode())]
        assert mine == alone.splitlines()


def test_what_is_not_coloured_is_given_as_it_is() -> None:
    assert given_by([("w", b"a\nb")], prefixed=False, whole_lines=False) == b"a\nb"
    assert given_by([("w", b"\x1b[1mc\x1b[0m\n")], prefixed=True, whole_lines=True) == b"[w] \x1b[1mc\x1b[0m\n"
