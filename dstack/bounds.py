"""Bounds of values from a host or a bucket, as part of the type of a field: `Annotated[int, Whole(most=255)]`.

A reader of foreign values checks each field by its bound. A field without a bound of its own has the bound of its plain
type in DEFAULT_BOUNDS. So no field of a new type is unbounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from dstack.wire.field_kinds import LATEST

MAX_REMARK = 300
"""Characters of a remark for people from another process, such as why a job waits."""
MAX_JSON_DEPTH = 32
"""Objects and lists inside one another where a field takes any JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A whole number from `least` to `most`."""

    least: int = 0
    most: int = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Real:
    """A number from `least` to `most`; another finite number is read as `instead`.

    Times are for people, and no decision rests on times: a wrong clock must not make a record unreadable.
    """

    least: float = 0.0
    most: float = LATEST
    instead: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """At most `most` characters, `least` at the least; `shown`: only characters that a terminal prints in a line.

    A text with halves of surrogate pairs that stand for no byte is refused: nothing could write or show the text.
    """

    most: int = 1 << 16
    least: int = 0
    shown: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """A list or a mapping of at most `most` items."""

    most: int = 1 << 16


Bound = Whole | Real | Text | Items
DEFAULT_BOUNDS: Mapping[Any, Bound] = {int: Whole(), float: Real(), str: Text(), tuple: Items(), Mapping: Items()}
"""The bound of a field whose type names none. Floats are seconds since the epoch, 0.0 for an unknown time."""

T = TypeVar("T")
Long = Annotated[str, Text(most=1 << 20)]
"""What may fill a whole record: scripts, values, reasons."""
Line = Annotated[str, Text(most=4096, shown=True)]
"""A text of a host for a terminal, shown without a change."""
Count = Annotated[int, Whole(most=1 << 20)]
Port = Annotated[int, Whole(least=1, most=65535)]
Priority = Annotated[int, Whole(least=-(10**6), most=10**6)]
"""Wider than the language of workflows, so that an older record is read."""
Slots = Annotated[int, Whole(least=1, most=1 << 20)]
ExitCode = Annotated[int, Whole(most=255)]
SignalNumber = Annotated[int, Whole(least=1, most=128)]
Few = Annotated[tuple[T, ...], Items(most=4096)]
