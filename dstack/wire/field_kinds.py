"""The kinds of values in the fields of messages, each kind with its bounds."""

from __future__ import annotations

from math import inf
from typing import Any, Dict, Tuple, Type

from dstack.wire import is_nonce
from dstack.wire.message_form import Kind, Message, MisfitError

LATEST = 253_402_214_400.0
"""A day before the year 10000, in seconds since the epoch: no calendar writes a later time, in any time zone."""
LARGEST = 2**63 - 1
"""The largest whole number of a message, where its field says nothing else."""
MAX_ITEMS = 1 << 20
"""Items of a list or a mapping of a message, where its field says nothing else: no frame has room for more."""

MAX_LIST_ITEMS = 4096
"""Items of a host's list for people, and characters of a text in the list."""


def text(least: int = 0, most: int = 0, *, shown: bool = False) -> Kind:
    """Text of `least` to `most` characters (0: as many as a frame holds); `shown`: without control characters."""

    def read(value: Any, _: bool) -> str:
        if not isinstance(value, str):
            raise MisfitError("must be text")
        if len(value) < least or (most and len(value) > most):
            raise MisfitError("must have %d to %d characters" % (least, most))
        if shown and not value.isprintable():
            raise MisfitError("must be text without control characters")
        if not value.isascii():
            _encoded(value)
        return value

    return Kind(read)


def _encoded(value: str) -> None:
    """Raise MisfitError for halves of surrogate pairs that stand for no byte: no process could write such a text."""
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise MisfitError("must be text that can be written") from None


def whole(least: int = 0, most: int = LARGEST) -> Kind:
    """A whole number."""

    def read(value: Any, _: bool) -> int:
        # The exact type, because True is an int for isinstance.
        if type(value) is not int or not least <= value <= most:
            bounds = "" if (least, most) == (0, LARGEST) else " from %d to %d" % (least, most)
            raise MisfitError("must be a whole number" + bounds)
        return value

    return Kind(read)


def real(least: float, most: float, what: str = "a number") -> Kind:
    """A number, whole or not; `what` names the number in the error."""

    def read(value: Any, _: bool) -> float:
        if type(value) not in (int, float) or not least <= value <= most:
            raise MisfitError("must be %s" % what)
        return value  # type: ignore[no-any-return]

    return Kind(read)


def moment() -> Kind:
    """A time for people in seconds since the epoch, 0.0 where it is unknown or later than any calendar writes."""

    def read(value: Any, _: bool) -> float:
        if type(value) not in (int, float) or not -inf < value < inf:
            raise MisfitError("must be a time")
        return float(value) if 0 <= value <= LATEST else 0.0

    return Kind(read)


def flag() -> Kind:
    def read(value: Any, _: bool) -> bool:
        if not isinstance(value, bool):
            raise MisfitError("must be true or false")
        return value

    return Kind(read)


def choice(*options: str) -> Kind:
    def read(value: Any, _: bool) -> str:
        if not isinstance(value, str) or value not in options:
            raise MisfitError("must be one of %s" % ", ".join(options))
        return value

    return Kind(read)


def texts(most: int = MAX_ITEMS, each: int = 0) -> Kind:
    """A list of at most `most` texts of at most `each` characters (0: as many as a frame holds), as a tuple."""
    inner = text(0, each)

    def read(value: Any, tolerant: bool) -> Tuple[str, ...]:
        if not isinstance(value, list) or len(value) > most:
            raise MisfitError("must be a list of text")
        try:
            return tuple([inner.read(item, tolerant) for item in value])
        except MisfitError:
            raise MisfitError("must be a list of text") from None

    return Kind(read, list)


def mapping() -> Kind:
    """Texts by name."""

    def read(value: Any, _: bool) -> Dict[str, str]:
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise MisfitError("must map names to text")
        for name, item in value.items():
            _encoded(name)
            _encoded(item)
        return value

    return Kind(read, dict)


def unread_list() -> Kind:
    """A list of JSON, unread: the code that takes the items checks the items."""

    def read(value: Any, _: bool) -> Tuple[Any, ...]:
        if not isinstance(value, list):
            raise MisfitError("must be a list")
        return tuple(value)

    return Kind(read, list)


def unread_object() -> Kind:
    """An object, unread: the code that takes the object checks the object."""

    def read(value: Any, _: bool) -> Dict[str, Any]:
        if not isinstance(value, dict):
            raise MisfitError("must be an object")
        return value

    return Kind(read, dict)


def optional(inner: Kind) -> Kind:
    """The inner kind, or null for None."""

    def read(value: Any, tolerant: bool) -> Any:
        return None if value is None else inner.read(value, tolerant)

    write = inner.write
    if write is None:
        return Kind(read)
    known = write
    return Kind(read, lambda value: None if value is None else known(value))


def nested(cls: Type[Message]) -> Kind:
    """A message as an object inside another one."""

    def read(value: Any, tolerant: bool) -> Message:
        return cls._read(value, tolerant)

    return Kind(read, lambda value: value.to_json())


def items(inner: Kind, most: int = MAX_ITEMS) -> Kind:
    """A list of at most `most` values, as a tuple."""

    def read(value: Any, tolerant: bool) -> Tuple[Any, ...]:
        if not isinstance(value, list) or len(value) > most:
            raise MisfitError("must be a list of at most %d" % most)
        return tuple([_item(inner, index, item, tolerant) for index, item in enumerate(value)])

    write = inner.write
    if write is None:
        return Kind(read, list)
    known = write
    return Kind(read, lambda values: [known(value) for value in values])


def _item(inner: Kind, index: int, value: Any, tolerant: bool) -> Any:
    try:
        return inner.read(value, tolerant)
    except MisfitError as misfit:
        raise misfit.below("[%d]" % index) from None


def nonce() -> Kind:
    """The nonce of an attempt."""

    def read(value: Any, _: bool) -> str:
        if not isinstance(value, str) or not is_nonce(value):
            hint = "a nonce is 16 to 64 of a-z and 0-9"
            raise MisfitError("not a nonce: %.80r" % (value,), kind="nonce", hint=hint)
        return value

    return Kind(read)


def line(least: int = 0, most: int = MAX_LIST_ITEMS) -> Kind:
    """A text of a host for a terminal, shown without a change."""
    return text(least, most, shown=True)
