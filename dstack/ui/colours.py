"""Colours and modes left on in a terminal by a log, and how the terminal is given back without colours."""

from __future__ import annotations

import re
import sys
from functools import lru_cache

RESET_COLOURS = b"\x1b[0m"
"""Turns every colour and mode (bold, hidden, reversed …) off."""
PERMITTED_PARAMETERS = frozenset(
    [*range(6), 7, 8, 9, *range(21, 26), 27, 28, 29, *range(30, 38), *range(39, 48), 49, 53, 55, 59]
)
"""The parameters of `ESC [ … m` permitted to a log, beside BRIGHT_COLOURS and EXTENDED_COLOURS; a reset undoes each.

Fonts (10 to 20) are not permitted: on the Linux console a reset does not undo a font.
"""
BRIGHT_COLOURS = range(90, 108)
EXTENDED_COLOURS = (38, 48, 58)
"""Parameters that begin a colour by number (`38;5;N`) or by red, green and blue (`38;2;R;G;B`), also with colons."""
MAX_SEQUENCES_IN_FORCE = 16
"""Sequences without a reset kept in force for the next lines; of more sequences only the last are kept."""

_SEQUENCE = re.compile(rb"\x1b\[([0-9;:]*)m")
_FRESH = re.compile(rb"0*(?:;|\Z)")
"""Parameters beginning with a reset."""


class Colours:
    """Follows the colours of one stream of bytes whose only control sequences are whole colours (`ESC [ … m`)."""

    def __init__(self) -> None:
        self._in_force: list[bytes] = []

    @property
    def in_force(self) -> bytes:
        """The sequences that give a clean terminal the colours of the stream; nothing while none is on."""
        return b"".join(self._in_force)

    @property
    def reset(self) -> bytes:
        """The bytes that take all colours away; nothing while none is on."""
        return RESET_COLOURS if self._in_force else b""

    def follow(self, data: bytes) -> None:
        """Take note of the colours in `data`."""
        if b"\x1b" not in data:
            return
        for found in _SEQUENCE.finditer(data):
            if _FRESH.match(found[1]):
                self._in_force.clear()
            # Zeros alone are a reset, with nothing left in force.
            if found[1].strip(b"0;"):
                self._in_force.append(found[0])
        del self._in_force[:-MAX_SEQUENCES_IN_FORCE]


@lru_cache(maxsize=512)
def keep_permitted(parameters: str) -> str | None:
    """The permitted parameters of one `ESC [ … m`, as written; None where no parameter is permitted.

    No parameters at all are a reset, and stay. `parameters` has digits, `;` and `:` only.
    """
    rest = parameters.split(";")
    permitted: list[str] = []
    while rest:
        length = _length_of_permitted(rest)
        permitted += rest[:length]
        del rest[: length or 1]
    return ";".join(permitted) if permitted else None


def _length_of_permitted(rest: list[str]) -> int:
    """How many parameters at the beginning of `rest` make up one permitted setting; 0 where the first begins none."""
    if ":" in rest[0]:
        head, *parts = map(_number, rest[0].split(":"))
        # `4:N` is a style of underlining, such as `4:3` for a wavy line.
        is_listed = _is_colour(head, parts) or (head == 4 and len(parts) == 1 and parts[0] <= 5)
        return 1 if is_listed else 0
    head = _number(rest[0])
    if head in EXTENDED_COLOURS:
        return next((n for n in (3, 5) if len(rest) >= n and _is_colour(head, [*map(_number, rest[1:n])], "")), 0)
    return 1 if head in PERMITTED_PARAMETERS or head in BRIGHT_COLOURS else 0


def _is_colour(head: int, parts: list[int], between: str = ":") -> bool:
    """Whether `head` and `parts` are a whole colour; with colons a colour may name a colour space, mostly left
    empty."""
    lengths = {5: (1,), 2: (3, 4) if between else (3,)}.get(parts[0], ()) if parts else ()
    return head in EXTENDED_COLOURS and len(parts) - 1 in lengths and max(parts) <= 255


def _number(text: str) -> int:
    """The number as a terminal reads `text`; 256, without meaning as a colour, for larger numbers and for other
    text."""
    digits = (text or "0").lstrip("0") or "0"
    return min(int(digits), 256) if digits.isdigit() and len(digits) <= 3 else 256


def restore_beside() -> None:
    """Take all colours off the terminal of standard error, for a standard output whose reader is gone.

    Output of the pipe may have come to this terminal, colours and all (`dstack logs | head`).
    """
    try:
        if sys.stderr.isatty():
            sys.stderr.write(RESET_COLOURS.decode())
            sys.stderr.flush()
    except (OSError, ValueError):
        return
