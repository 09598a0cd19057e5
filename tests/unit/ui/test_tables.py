"""Tables are as wide as they may be and not one column wider."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.ui import tables
from dstack.ui.tables import (
    NOTE_MIN_COLUMNS,
    UNLIMITED_COLUMNS,
    Column,
    cut,
    display_width,
    note,
    note_lines,
    notes,
    screen_width,
    size_text,
    table_lines,
    use_colour,
    wrap_text,
)
from dstack.ui.terminal import clean
from dstack.ui.times import age_text, ago_text, duration_text

COLUMNS = (Column(title="RUN", floor=6), Column(title="STATUS", floor=6, styled=True), Column(title="N", right=True))


@given(
    st.lists(st.tuples(st.text(max_size=120), st.text(max_size=120), st.text(max_size=20)), max_size=6),
    st.integers(40, 120),
)
def test_no_line_is_wider_than_the_screen(rows: list[tuple[str, str, str]], width: int) -> None:
    for line in table_lines(COLUMNS, rows, width=width):
        assert display_width(line) <= width
        assert "\n" not in line
        assert "\x1b" not in line


def test_what_is_too_long_fills_exactly_80_columns() -> None:
    lines = table_lines(COLUMNS, [("r" * 100, "succeeded", "1")], width=80)
    assert lines == [f"RUN{' ' * 63}  STATUS     N", f"{'r' * 65}…  succeeded  1"]
    assert len(lines[1]) == 80


def test_the_longest_column_gives_way_first() -> None:
    assert table_lines(COLUMNS, [("run-1", "s" * 50, "12345")], width=30)[1] == f"run-1  {'s' * 15}…  12345"


def test_wide_characters_count_twice() -> None:
    assert display_width("日本") == 4
    assert cut("日本語テキスト", 7) == "日本語…"
    assert display_width("é") == 1


def test_colour_changes_no_width() -> None:
    rows = [("a", "failed", "1")]
    plain = table_lines(COLUMNS, rows)
    coloured = table_lines(COLUMNS, rows, colour=True)
    assert coloured[1] == plain[1].replace("failed", "\x1b[1;31mfailed\x1b[0m")


def test_no_style_is_unreadable_on_a_light_background() -> None:
    from dstack.ui.tables import STATUS_STYLES

    for style in STATUS_STYLES.values():
        codes = style.removeprefix("\x1b[").removesuffix("m").split(";")
        assert not {"33", "37", "93", "97", "2"} & set(codes)


def test_a_pipe_is_neither_coloured_nor_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert not use_colour(io.StringIO())
    assert screen_width(io.StringIO()) > 10_000


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (20_000_000, "20 MB"), (3 << 50, "3378 TB")]
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(("seconds", "text"), [(7, "0:07"), (725, "12:05"), (11045, "3:04:05"), (183_840, "2d 03:04")])
def test_durations_for_people(seconds: int, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (5, "just now"),
        (-5, "just now"),
        (300, "5 min ago"),
        (7300, "2 h ago"),
        (90_000, "1 day ago"),
        (200_000, "2 days ago"),
    ],
)
def test_moments_for_people(seconds: int, text: str) -> None:
    assert ago_text(1e9, 1e9 + seconds) == text


NOTED = (Column(title="RUN", floor=6), Column(title="HOST"), Column(title="NOTE", floor=16, wraps=True))


def test_a_column_that_wraps_loses_nothing_and_spares_the_others() -> None:
    note = "cannot reach gpu-1 (connection refused), cannot reach gpu-2 (no route to host)"
    lines = table_lines(NOTED, [("calm-otter-7", "gpu-1", note)], width=50)
    assert all(len(line) <= 50 for line in lines)
    assert lines[1].startswith("calm-otter-7  gpu-1  cannot reach")
    assert " ".join(line[21:] for line in lines[1:]) == note
    assert {line[:21].strip() for line in lines[2:]} == {""}


@given(st.text(max_size=200), st.integers(3, 60))
def test_wrapped_lines_hold_every_character_and_fit(text: str, width: int) -> None:
    cleaned = clean(text)
    lines = wrap_text(cleaned, width)
    assert "".join(lines).replace(" ", "") == cleaned.replace(" ", "")
    assert all(display_width(line) <= width for line in lines)


def test_a_long_text_is_broken_in_time_that_grows_with_it_alone() -> None:
    """Counted are the characters whose width is looked up, not seconds: each twice at most."""
    counted = 0

    def width(_: str) -> int:
        nonlocal counted
        counted += 1
        return 1

    for text in ("é" * 60_000, "é " * 30_000, "éé" * 10_000 + " é" * 20_000):
        counted = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tables, "_char_width", width)
            assert len(wrap_text(text, 80)) >= 60_000 // 81
        assert counted <= 2 * len(text)


@pytest.mark.parametrize(("seconds", "text"), [(-5, "0m"), (59, "0m"), (300, "5m"), (7300, "2h"), (200_000, "2d")])
def test_moments_for_narrow_columns(seconds: int, text: str) -> None:
    assert age_text(1e9, 1e9 + seconds) == text
    assert age_text(1e9, 1e9 + 8 * 86400) == ago_text(1e9, 1e9 + 8 * 86400)


SEVERAL = (Column(title="HOST"), Column(title="GPUS", wraps=True), Column(title="BUCKET", wraps=True))


def test_columns_that_wrap_in_the_middle_lose_nothing_either() -> None:
    lines = table_lines(SEVERAL, [("gpu-1", "2 × NVIDIA A100 80 GB", "yes (alice, forwarded)")], width=30)
    assert all(display_width(line) <= 30 for line in lines)
    second, third = lines[0].index("GPUS"), lines[0].index("BUCKET")
    rows = [(line[second:third].strip(), line[third:].strip()) for line in lines]
    assert " ".join(cell for cell, _ in rows).split() == ["GPUS", "2", "×", "NVIDIA", "A100", "80", "GB"]
    assert " ".join(cell for _, cell in rows).split() == ["BUCKET", "yes", "(alice,", "forwarded)"]


@given(st.text(max_size=300), st.integers(NOTE_MIN_COLUMNS, 90))
def test_a_note_is_broken_at_spaces_and_keeps_every_word(text: str, width: int) -> None:
    lines = note_lines(f"  {text}", width)
    assert all(display_width(line) <= width for line in lines)
    words = clean(text).split(" ")  # other spaces, such as those that do not break, keep words together
    if all(display_width(word) <= width - 4 for word in words):
        assert " ".join(lines).split() == clean(text).split()


@given(st.text(st.characters() | st.sampled_from("\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\x1b"), max_size=300))
def test_no_text_makes_a_line_of_its_own_in_a_note(text: str) -> None:
    assert len("\n".join(note_lines(f"a-1 {text}", UNLIMITED_COLUMNS)).splitlines()) == 1
    assert len(note(f"  {text}x", io.StringIO()).splitlines()) == 1
    wide = note_lines(f"a-1 {text}", 40)
    assert all(line.startswith("  ") for line in wide[1:]), "what goes on is not taken for a line of its own"


def test_a_note_goes_on_below_its_beginning() -> None:
    told = ["gpu-1: no git, so no code", "  install git on it, e.g. `apt-get install git`"]
    assert [line for text in told for line in note_lines(text, 24)] == [
        "gpu-1: no git, so no",
        "  code",
        "  install git on it,",
        "    e.g. `apt-get",
        "    install git`",
    ]
    assert notes(told, io.StringIO()) == "\n".join(told) + "\n"
