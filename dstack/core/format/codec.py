"""Frozen dataclasses to JSON-able values and back.

Every value read was written by another process, and is hostile: `build` checks each value against the type hints of our
own classes and against the bound of its type (`bounds.py`). Any misfit becomes a BucketError with the object and the
field. The checks of a class are put together once, at first use; hints are evaluated of our classes only, never of
data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from dstack.bounds import DEFAULT_BOUNDS, MAX_JSON_DEPTH, Bound
from dstack.errors import BucketError

T = TypeVar("T")
Reader = Callable[[object], Any]

DAMAGE_HINT = "it is damaged, or was written by something else"
PLAIN_TYPES = frozenset({str, int, bool, NoneType})


class _MisfitError(Exception):
    """A misfitting value; the error gathers the path of the field on the way out, at no cost to the good case."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.path: list[str] = []


def _misfit(wanted: str, value: object) -> _MisfitError:
    return _MisfitError(f"expected {wanted}, found {_describe(value)}")


def plain(value: object) -> Any:
    """`value` as JSON-able value: dataclasses and mappings become dicts, tuples lists, enum members their values.

    Every field is written, defaults too, so a later change of a default changes no old record. Raises TypeError for a
    value without such a form and ValueError for NaN and infinities: both are bugs of the caller.
    """
    # The exact type: a bool or an enum member is an int or a str as well, and needs the branches below.
    if type(value) in PLAIN_TYPES:
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} cannot be written to a record")
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain(getattr(value, name)) for name in _names(type(value))}
    if isinstance(value, Mapping):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, str | int):
        return value
    raise TypeError(f"{type(value).__name__} cannot be written to a record")


def build(cls: type[T], data: object, where: str) -> T:
    """A `cls` from `data`, a parsed JSON value; the inverse of `plain`.

    Absent fields take their defaults; fields unknown to `cls` are ignored. Raises BucketError, naming `where` and the
    field, when a field without a default is absent or a value is of another type.
    """
    try:
        built: object = _reader(cast(Any, cls))(data)
    except _MisfitError as misfit:
        path = "".join(reversed(misfit.path)).lstrip(".")
        place = f"{where}, field {path}" if path else where
        raise BucketError(f"{place}: {misfit}", hint=DAMAGE_HINT) from None
    assert isinstance(built, cls)
    return built


@cache
def _names(cls: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(cls))


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{type(key).__name__} cannot be the key of a mapping in a record")
    return str(key)


def _describe(value: object) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a number of many digits"
    text = repr(value) if not isinstance(value, str) else ascii(value[:40])
    return text if len(text) <= 40 else f"{text[:40]}…"


@cache
def _reader(hint: Any, bound: Bound | None = None) -> Reader:
    """The check for a type hint and its bound; the check returns the value. Raises TypeError for a hint not used by
    records."""
    hint = getattr(hint, "__supertype__", hint)
    if get_origin(hint) is Annotated:
        return _reader(hint.__origin__, next((each for each in hint.__metadata__ if isinstance(each, Bound)), bound))
    if hint in _SCALARS:
        return _SCALARS[hint](bound or DEFAULT_BOUNDS.get(hint))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _enum_reader(hint)
    if isinstance(hint, type) and is_dataclass(hint):
        return _object_reader(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType) and len(arguments) == 2 and NoneType in arguments:
        return _optional_reader(next(argument for argument in arguments if argument is not NoneType))
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _tuple_reader(arguments[0], bound or DEFAULT_BOUNDS[tuple])
    if isinstance(origin, type) and issubclass(origin, Mapping) and arguments[0] is str:
        return _mapping_reader(arguments[1], bound or DEFAULT_BOUNDS[Mapping])
    raise TypeError(f"{hint!r} is not a type of a record")


def _text_reader(bound: Any) -> Reader:
    def read(value: object) -> str:
        if not isinstance(value, str):
            raise _misfit("a string", value)
        if not bound.least <= len(value) <= bound.most:
            raise _MisfitError(f"expected {bound.least} to {bound.most} characters, found {len(value)}")
        if bound.shown and not value.isprintable():
            raise _misfit("text without control characters", value)
        # ASCII text, which most is, needs no attempt at encoding.
        if not value.isascii() and not _is_writable(value):
            raise _misfit("text that can be written", value)
        return value

    return read


def _is_writable(text: str) -> bool:
    """Whether the text stands for bytes: valid Unicode, or bytes of a name that are none."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _whole_reader(bound: Any) -> Reader:
    def read(value: object) -> int:
        # True is an int for Python, and none for JSON.
        if not isinstance(value, int) or isinstance(value, bool):
            raise _misfit("a whole number", value)
        if not bound.least <= value <= bound.most:
            raise _misfit(f"a whole number from {bound.least} to {bound.most}", value)
        return value

    return read


def _read_bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise _misfit("true or false", value)
    return value


def _real_reader(bound: Any) -> Reader:
    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _misfit("a number", value)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise _misfit("a finite number", number)
        # Numbers out of bounds are times by wrong clocks, on which no decision rests: the record stays readable.
        return number if bound.least <= number <= bound.most else cast(float, bound.instead)

    return read


def _read_any(value: object, depth: int = MAX_JSON_DEPTH) -> object:
    """Any JSON with all parts within the bounds of their types."""
    if isinstance(value, dict | list) and depth <= 0:
        raise _MisfitError(f"expected at most {MAX_JSON_DEPTH} objects and lists inside one another")
    if isinstance(value, dict):
        return {
            _read_key(key): _read_any(item, depth - 1)
            for key, item in _within_bound(value, DEFAULT_BOUNDS[Mapping]).items()
        }
    if isinstance(value, list):
        return [_read_any(item, depth - 1) for item in _within_bound(value, DEFAULT_BOUNDS[tuple])]
    if value is None or isinstance(value, bool):
        return value
    plain_type: Any = type(value) if isinstance(value, int | float) else str
    return _reader(plain_type)(value)


_SCALARS: dict[Any, Callable[[Any], Reader]] = {
    str: _text_reader,
    int: _whole_reader,
    bool: lambda bound: _read_bool,
    float: _real_reader,
    Any: lambda bound: _read_any,
}


def _read_key(key: object) -> str:
    return cast(str, _reader(str)(key))


def _within_bound(value: Any, bound: Any) -> Any:
    """The list or object itself; raises _MisfitError above the bound."""
    if len(value) > bound.most:
        raise _MisfitError(f"expected at most {bound.most} items, found {len(value)}")
    return value


def _enum_reader(cls: type[Enum]) -> Reader:
    members = {member.value: member for member in cls}

    def read(value: object) -> Enum:
        if not isinstance(value, str | int) or value not in members:
            raise _misfit(f"one of {', '.join(map(str, members))}", value)
        return members[value]

    return read


def _optional_reader(inner: Any) -> Reader:
    reader = _reader(inner)
    return lambda value: None if value is None else reader(value)


def _tuple_reader(inner: Any, bound: Any) -> Reader:
    reader = _reader(inner)

    def read(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _misfit("a list", value)
        try:
            return tuple(map(reader, _within_bound(value, bound)))
        except _MisfitError as misfit:
            # Which one it was is found only now: the good case counts nothing.
            if len(value) <= bound.most:
                misfit.path.append(f"[{_first_misfit(reader, value)}]")
            raise

    return read


def _first_misfit(reader: Reader, items: list[object]) -> int:
    for index, item in enumerate(items):
        try:
            reader(item)
        except _MisfitError:
            return index
    raise AssertionError("a reader refused a value and then took it")


def _mapping_reader(inner: Any, bound: Any) -> Reader:
    reader = _reader(inner)

    def read(value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _misfit("an object", value)
        result = {}
        for key, item in _within_bound(value, bound).items():
            try:
                result[_read_key(key)] = reader(item)
            except _MisfitError as misfit:
                misfit.path.append(f".{_describe(key)}")
                raise
        return result

    return read


def _object_reader(cls: type[Any]) -> Reader:
    hints = get_type_hints(cls, include_extras=True)
    parts = [(f.name, _reader(hints[f.name]), _required(f)) for f in fields(cls) if f.init]

    def read(value: object) -> Any:
        if not isinstance(value, dict):
            raise _misfit("an object", value)
        arguments = {}
        for name, reader, required in parts:
            if name in value:
                try:
                    arguments[name] = reader(value[name])
                except _MisfitError as misfit:
                    misfit.path.append(f".{name}")
                    raise
            elif required:
                missing = _MisfitError("it is missing")
                missing.path.append(f".{name}")
                raise missing
        return cls(**arguments)

    return read


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING
