"""Nothing that steers a terminal gets through the filter, whatever the pieces; all text does."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.ui.terminal import MAX_HELD_CHARACTERS, LinePrefixer, TerminalFilter, clean

HOSTILE = {
    "OSC 52 writes the clipboard": b"a\x1b]52;c;cm0gLXJmIH4=\x07b",
    "OSC 8 makes a link": b"a\x1b]8;;http://evil.example\x1b\\text\x1b]8;;\x1b\\b",
    "OSC 0 sets the title": b"a\x1b]0;title\x07b",
    "title report": b"a\x1b[21tb",
    "DECRQSS": b'a\x1bP$q"p\x1b\\b',
    "device status report": b"a\x1b[6n\x1b[c\x1b[>cb",
    "clear and home": b"a\x1b[2J\x1b[Hb",
    "alternate screen": b"a\x1b[?1049hb",
    "mouse reports": b"a\x1b[?1000h\x1b[?1006hb",
    "bracketed paste": b"a\x1b[?2004hb",
    "APC": b"a\x1b_Gf=100;AAAA\x1b\\b",
    "PM": b"a\x1b^secret\x1b\\b",
    "SOS": b"a\x1bXsecret\x1b\\b",
    "8-bit CSI": b"a\x9b2Jb",
    "8-bit OSC": b"a\x9d52;c;AAAA\x9cb",
    "8-bit DCS": b"a\x90$q\x9cb",
    "C1 in UTF-8": b"a\xc2\x9b2J\xc2\x9d0;t\x07b",
    "bidi override": "a\u202egnp.exe\u202cb".encode(),
    "bidi isolate": "a\u2066x\u2069\u061cb".encode(),
    "line separators": "a\u2028x\u2029b".encode(),
    "charset switch": b"a\x1b(0\x0e\x1b)Bb",
    "reset": b"a\x1bcb",
    "keypad, index, tabs": b"a\x1b=\x1bD\x1bM\x1bHb",
    "backspace and bell": b"a\x08\x08\x07\x7fb",
    "unfinished string": b"a\x1b]0;never ended\nb",
    "nested": b"a\x1b]0;\x1b[2Jx\x07b",
    "cancelled": b"a\x1b[12\x18;3mb\x1b[1\x1bc",
    "overlong ESC": b"a\xc0\x9bb",
    "surrogates": b"a\xed\xa0\x80b",
    "long CSI": b"a\x1b[" + b"1;" * 500 + b"Hb",
    "conceal by CSI with intermediates": b"a\x1b[1$}\x1b[0 qb",
}
COLOUR = re.compile(rb"\x1b\[[0-9;:]*m")


def forbidden(shown: bytes) -> set[str]:
    """What must never reach a terminal, judged by characters and not by the filter's own patterns."""
    text = COLOUR.sub(b"", shown).decode("utf-8")
    bidi = {*"\u061c\u200e\u200f\u2028\u2029", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
    controls = {*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0))} - {"\n", "\t"}
    return set(text) & (controls | bidi)


def run(pieces: list[bytes]) -> bytes:
    screen = TerminalFilter()
    return b"".join([*map(screen.feed, pieces), screen.finish()])


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_forbidden_gets_through_wherever_the_stream_is_cut(name: str) -> None:
    data = HOSTILE[name]
    whole = run([data])
    assert forbidden(whole) == set()
    assert whole.startswith(b"a")
    for cut in range(len(data) + 1):
        assert run([data[:cut], data[cut:]]) == whole
    assert run([data[i : i + 1] for i in range(len(data))]) == whole


@pytest.mark.parametrize("name", sorted(set(HOSTILE) - {"cancelled", "long CSI", "nested"}))
def test_text_around_a_sequence_stays(name: str) -> None:
    shown = run([HOSTILE[name]])
    assert shown.startswith(b"a")
    assert shown.endswith(b"b")


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_no_bytes_at_all_get_anything_forbidden_through(pieces: list[bytes]) -> None:
    assert forbidden(run(pieces)) == set()


@given(
    st.lists(
        st.sampled_from(
            [b"\x1b", b"[", b"]", b"\x9b", b"\xc2", b"\x9d", b"P", b"\\", b"3", b"m", b"J", b"\n", b"\r", b"\x07"]
        ),
        max_size=30,
    )
)
def test_the_result_does_not_depend_on_the_pieces(pieces: list[bytes]) -> None:
    whole = run([b"".join(pieces)])
    assert forbidden(whole) == set()
    assert run(pieces).replace(b"\n", b"") == whole.replace(b"\n", b"") or b"\r" in b"".join(pieces)


@given(
    st.text(alphabet=st.characters(min_codepoint=0xA1, exclude_categories=("Cs", "Cf", "Zl", "Zp", "Cc"))),
    st.integers(1, 7),
)
def test_text_of_any_language_is_kept_across_cuts(text: str, size: int) -> None:
    data = f"{text}\n\t{text}".encode()
    assert run([data[i : i + size] for i in range(0, len(data), size)]) == data


def test_colours_are_kept() -> None:
    data = b"\x1b[1;31mred\x1b[0m \x1b[38;2;1;2;3mrgb\x1b[38:5:10m\x1b[m\n"
    assert run([data[i : i + 1] for i in range(len(data))]) == data


PERMITTED_PARAMETERS = {*range(6), 7, 8, 9, *range(21, 26), 27, 28, 29, *range(30, 38), *range(39, 48), 49, 53, 55, 59}
PERMITTED_PARAMETERS |= {*range(90, 108)}
NUMBER = "0*(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9]|)"
EXTENDED_COLOURS = re.compile(
    f"0*[345]8(?:;0*5;{NUMBER}|;0*2(?:;{NUMBER}){{3}}|:0*5:{NUMBER}|:0*2(?::{NUMBER}?)?(?::{NUMBER}){{3}})(?:;|$)"
    "|0*4:0*[0-5](?:;|$)"
)


def unlisted(shown: bytes) -> list[str]:
    """The parameters of all colours that are not on the list, judged by a reading of the test's own."""
    found = []
    for colour in COLOUR.findall(shown):
        rest = colour[2:-1].decode()
        while rest:
            extended = EXTENDED_COLOURS.match(rest)
            one, _, rest = (extended[0], "", rest[extended.end() :]) if extended else rest.partition(";")
            if not extended and not ((one or "0").isdigit() and int(one or 0) in PERMITTED_PARAMETERS):
                found.append(one)
    return found


@given(
    st.lists(
        st.one_of(
            st.integers(0, 120).map(str),
            st.sampled_from(["", "38", "48", "58", "5", "2", "11", "012", "4294967307", "4:3", "4:9", "38:5:11"]),
            st.sampled_from(
                ["38:2::1:2:3", "48:2:1:2:3", "38:5", "11:12", ":11", "38;5;11", "38;2;11;12;13", "38;5;256"]
            ),
        ),
        max_size=8,
    ),
    st.sampled_from(";;;:"),
    st.integers(1, 9),
)
def test_only_listed_parameters_of_a_colour_get_through(parameters: list[str], between: str, size: int) -> None:
    """Others switch fonts on the Linux console, which a reset does not undo."""
    data = f"a\x1b[{between.join(parameters)}mb".encode()
    shown = run([data[i : i + size] for i in range(0, len(data), size)])
    assert unlisted(shown) == []
    if len(data) <= 48:
        assert shown == data or unlisted(data)
        assert COLOUR.sub(b"", shown) == b"ab"


@given(st.lists(st.sampled_from([b"\x1b[", b"\x1b", b"[", b"m", b"1", b"11", b"38", b";", b":", b"5", b"\r", b"\n"])))
def test_no_pieces_make_an_unlisted_parameter(pieces: list[bytes]) -> None:
    assert unlisted(run(pieces)) == []


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("\x1b[11m", ""),
        ("\x1b[012;10m", ""),
        ("\x1b[4294967307m", ""),
        ("\x1b[0;10m", "\x1b[0m"),
        ("\x1b[1;11;31m", "\x1b[1;31m"),
        ("\x1b[38;5;11;12m", "\x1b[38;5;11m"),
        ("\x1b[38;11m", ""),
        ("\x1b[38;5;256m", "\x1b[5m"),
        ("\x1b[4:3;58:2::1:2:3m", "\x1b[4:3;58:2::1:2:3m"),
        ("\x1b[;m", "\x1b[;m"),
        ("\x1b[m", "\x1b[m"),
    ],
)
def test_what_is_not_listed_is_taken_out_of_a_colour(written: str, shown: str) -> None:
    assert run([f"a{written}b".encode()]) == f"a{shown}b".encode()


def test_windows_line_ends_become_newlines_even_when_cut() -> None:
    assert run([b"a\r", b"\nb\r\n", b"c\r\r\n"]) == b"a\nb\nc\n"


def test_a_progress_bar_is_given_once_as_it_stood_last() -> None:
    assert run([b"go\n 10%\r 20%\r", b" 30%\r", b"100%\ndone\n"]) == b"go\n100%\ndone\n"


def test_a_progress_bar_over_text_that_was_given_already_starts_a_new_line() -> None:
    assert run([b"epoch 1", b"\repoch 2\r", b"epoch 3\n"]) == b"epoch 1\nepoch 3\n"


def test_a_held_line_can_be_released() -> None:
    screen = TerminalFilter()
    assert screen.feed(b"\r10%\r20%") == b""
    assert screen.is_holding
    assert screen.release() == b"20%\n"
    assert screen.feed(b"\r30%\n") == b"30%\n"


def test_a_line_without_an_end_is_not_held_for_ever() -> None:
    screen = TerminalFilter()
    given_ = sum(len(screen.feed(b"\r" + b"x" * 1000 + b"y" * 1000 * i)) for i in range(200))
    assert given_ > 0
    assert len(screen.finish()) <= 2 * MAX_HELD_CHARACTERS + 200_000


def test_the_last_line_comes_without_a_newline() -> None:
    assert run([b"one\ntwo"]) == b"one\ntwo"


def test_plain_text_passes_unchanged_at_once() -> None:
    screen = TerminalFilter()
    assert screen.feed(b"prompt> ") == b"prompt> "


def test_names_lose_everything_that_is_not_text() -> None:
    assert clean("gpu\x1b]0;x\x07-1\n\u202e\x9b2J\r") == "gpu-1  "


@given(st.lists(st.text(alphabet="ab\n", max_size=8).map(str.encode), max_size=10))
def test_every_line_gets_its_prefix_whatever_the_pieces(pieces: list[bytes]) -> None:
    prefixer = LinePrefixer(b"[w] ")
    shown = b"".join([*map(prefixer.feed, pieces), prefixer.flush()])
    lines = b"".join(pieces).split(b"\n")
    if not lines[-1]:
        lines.pop()
    assert shown == b"".join(b"[w] " + line + b"\n" for line in lines)


def test_a_line_without_an_end_is_cut_by_the_prefixer() -> None:
    prefixer = LinePrefixer(b"[w] ")
    shown = b"".join(prefixer.feed(b"x" * 1000) for _ in range(200))
    assert len(shown) > 100_000
