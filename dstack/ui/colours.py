"""Colours and modes that a log leaves on in a terminal, and how the terminal is given back without them."""

from __future__ import annotations

import re
import sys

RESET = b"\x1b[0m"
"""Turns every colour and mode (bold, hidden, reversed …) off."""
MOST = 16
"""Sequences without a reset that are kept in force for the lines to come; of more only the last ones."""

_SEQUENCE = re.compile(rb"\x1b\[([0-9;:]*)m")
_FRESH = re.compile(rb"0*(?:;|\Z)")
"""Parameters that begin with a reset."""


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
        return RESET if self._in_force else b""

    def follow(self, data: bytes) -> None:
        """Take note of the colours in `data`."""
        if b"\x1b" not in data:
            return
        for found in _SEQUENCE.finditer(data):
            if _FRESH.match(found[1]):
                self._in_force.clear()
            if found[1].strip(b"0;"):
                self._in_force.append(found[0])
        del self._in_force[:-MOST]


def restore_beside() -> None:
    """Take all colours off the terminal of standard error, for a standard output that nobody reads any more.

    What was written into the pipe may have come to this terminal, colours and all (`dstack logs | head`).
    """
    try:
        if sys.stderr.isatty():
            sys.stderr.write(RESET.decode())
            sys.stderr.flush()
    except (OSError, ValueError):
        return
