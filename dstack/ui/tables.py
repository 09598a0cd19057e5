"""Plain tables and small texts for people, without rich: `ps` must start fast."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TextIO

from dstack.bounds import MAX_REMARK
from dstack.ui.terminal import clean

COLUMN_GAP = "  "
UNLIMITED_COLUMNS = 1 << 16
MIN_CELL_COLUMNS = 3
"""Columns left to a cell when nothing else helps."""
NOTE_MIN_COLUMNS = 20
"""Columns below which notes are not made narrower."""
RESET_STYLE = "\x1b[0m"
BOLD_STYLE = "\x1b[1m"
STATUS_STYLES: Mapping[str, str] = {
    # Readable on dark and light backgrounds: no yellow, no white, nothing dim.
    "succeeded": "\x1b[32m",
    "reused": "\x1b[32m",
    "failed": "\x1b[1;31m",
    "lost": "\x1b[1;31m",
    "interrupted": "\x1b[1;31m",
    "stopped": "\x1b[35m",
    "stopping": "\x1b[35m",
    "running": "\x1b[1;36m",
    "preparing": "\x1b[36m",
    "placed": "\x1b[36m",
    "uploading": "\x1b[36m",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table. No cell is cut below the width `floor`; `right` aligns numbers; `styled` colours statuses.

    `wraps`: a long text goes on in the lines below, and nothing is cut.
    """

    title: str
    floor: int = 6
    right: bool = False
    styled: bool = False
    wraps: bool = False


def use_colour(stream: TextIO) -> bool:
    """Whether to colour: on a terminal other than a dumb terminal, without NO_COLOR."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def screen_width(stream: TextIO | None = None) -> int:
    """Columns to fill: COLUMNS, else the columns of the terminal, else enough to cut nothing."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size((stream or sys.stdout).fileno()).columns or 80
    except (OSError, ValueError):
        return UNLIMITED_COLUMNS


def display_width(text: str) -> int:
    """The columns of a cleaned text in a terminal."""
    if text.isascii():
        return len(text)
    return sum(_char_width(char) for char in text)


def _char_width(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Cf", "Me", "Mn"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, width: int) -> str:
    """`text` in at most `width` columns, ending in … when something was left out."""
    if display_width(text) <= width:
        return text
    chars, used = [], 0
    for char in text:
        used += _char_width(char)
        if used > width - 1:
            break
        chars.append(char)
    return "".join(chars).rstrip() + "…" if width > 0 else ""


def brief(text: str) -> str:
    """`text` in at most MAX_REMARK characters, ending in … when something was left out: a text of another user or host
    must not hide the words beside the text."""
    return text if len(text) <= MAX_REMARK else f"{text[: MAX_REMARK - 1].rstrip()}…"


def wrap_text(text: str, width: int, *, below: int = 0) -> list[str]:
    """`text` in lines of at most `width` columns, broken between words, and inside long words; lines
    after the first have `below` columns less. Takes time in proportion to the text."""
    lines: list[str] = []
    words: list[str] = []
    used = 0
    for word in text.split(" "):
        size = display_width(word)
        if words and used + 1 + size <= width - below * bool(lines):
            words.append(word)
            used += 1 + size
            continue
        if words:
            lines.append(" ".join(words))
        heads, rest, used = _broken(word, size, width - below * bool(lines), width - below)
        lines += heads
        words = [rest] if rest else []
    return [*lines, " ".join(words)]


def _broken(word: str, size: int, first: int, room: int) -> tuple[list[str], str, int]:
    """A word of `size` columns as parts to fill a line of `first` columns and more lines of `room`, the rest, and the
    columns of the rest. No part is empty."""
    parts: list[str] = []
    if size <= first:
        return parts, word, size
    start = used = 0
    for index, char in enumerate(word):
        columns = _char_width(char)
        if used + columns > (room if parts else first) and index > start:
            parts.append(word[start:index])
            start, used = index, 0
        used += columns
    return parts, word[start:], used


def style_status(status: str, text: str | None = None) -> str:
    """`text` (default: the status) in the colour of the status."""
    shown = status if text is None else text
    style = STATUS_STYLES.get(status)
    return f"{style}{shown}{RESET_STYLE}" if style else shown


def table_lines(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], *, width: int = UNLIMITED_COLUMNS, colour: bool = False
) -> list[str]:
    """A title and a line for each row, none wider than `width`: the widest cells are cut first. Cells are cleaned.

    A row has several lines where a column wraps.
    """
    cells = [[clean(cell) for cell in row] for row in rows]
    sizes = _sizes(columns, cells, width)
    title = [column.title for column in columns]
    lines = [_line(columns, title, sizes)]
    if colour:
        lines[0] = f"{BOLD_STYLE}{lines[0]}{RESET_STYLE}"
    for row in cells:
        parts = [
            wrap_text(cell, size) if column.wraps else [cell]
            for column, cell, size in zip(columns, row, sizes, strict=True)
        ]
        for shown in zip_longest(*parts, fillvalue=""):
            lines.append(_line(columns, shown, sizes, colour=colour))
    return lines


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], stream: TextIO) -> str:
    """The table for `stream`, with a newline at the end."""
    return "\n".join(table_lines(columns, rows, width=screen_width(stream), colour=use_colour(stream))) + "\n"


def note(text: str, stream: TextIO) -> str:
    """A text beside a table or in place of a table, for `stream`, with a newline at the end.

    The text becomes a single line: a newline from a host or a bucket begins no line. Long lines are broken on a
    terminal alone: programs read the output to a pipe or a file.
    """
    return "\n".join(note_lines(text, screen_width(stream) if stream.isatty() else UNLIMITED_COLUMNS)) + "\n"


def notes(texts: Iterable[str], stream: TextIO) -> str:
    """Each text as a note."""
    return "".join(note(text, stream) for text in texts)


def note_lines(text: str, width: int) -> list[str]:
    """`text` as one line, cleaned and broken between words so that nothing is wider than `width` (at least
    NOTE_MIN_COLUMNS); the further lines are indented by two more columns."""
    line = clean(text)
    indent = min(len(line) - len(line.lstrip(" ")), NOTE_MIN_COLUMNS // 4)
    first, *rest = wrap_text(line.strip(" "), max(width, NOTE_MIN_COLUMNS) - indent, below=len(COLUMN_GAP))
    return [f"{' ' * indent}{first}".rstrip(), *(f"{' ' * indent}{COLUMN_GAP}{part}" for part in rest)]


def _sizes(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    sizes = [
        max([len(column.title), *(display_width(row[index]) for row in rows)]) for index, column in enumerate(columns)
    ]
    excess = sum(sizes) + len(COLUMN_GAP) * (len(sizes) - 1) - width
    floors = [max(len(column.title), column.floor) for column in columns]
    # What wraps is made narrower before anything is cut.
    first = [floor if column.wraps else size for column, floor, size in zip(columns, floors, sizes, strict=True)]
    for least in (first, floors, [MIN_CELL_COLUMNS] * len(columns)):
        excess = _shrink(sizes, least, excess)
    return sizes


def _shrink(sizes: list[int], floors: Sequence[int], excess: int) -> int:
    """Take `excess` from the sizes, always from the size farthest above its floor -> the excess left at the end."""
    rooms = [max(0, size - floor) for size, floor in zip(sizes, floors, strict=True)]
    while excess > 0 and max(rooms) > 0:
        widest = rooms.index(max(rooms))
        second = max((room for index, room in enumerate(rooms) if index != widest), default=0)
        step = min(excess, max(1, rooms[widest] - second))
        rooms[widest] -= step
        sizes[widest] -= step
        excess -= step
    return excess


def _line(columns: Sequence[Column], row: Sequence[str], sizes: Sequence[int], *, colour: bool = False) -> str:
    parts = []
    for index, (column, cell, size) in enumerate(zip(columns, row, sizes, strict=True)):
        text = cut(cell, size)
        space = " " * (size - display_width(text))
        shown = style_status(cell, text) if colour and column.styled else text
        last = index == len(columns) - 1
        parts.append(space + shown if column.right else shown if last else shown + space)
    return COLUMN_GAP.join(parts).rstrip()


def size_text(size: int) -> str:
    """Bytes for people: `0 B`, `1.5 kB`, `20 MB`."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        # 999.5 would be rounded to `1000`, and 9.95 to `10.0`.
        if value < 999.5 or unit == "TB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 9.95 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable: TB takes everything")
