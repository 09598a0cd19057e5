"""Small Hypothesis strategies for any type hint that records use, within the bounds of its fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from dstack.bounds import DEFAULT_BOUNDS, Bound, Real, Text, Whole

WRITABLE = st.characters(codec="utf-8")
SHOWN = st.characters(codec="utf-8").filter(str.isprintable)
TEXT = st.text(max_size=10)
"""Any text, halves of surrogate pairs too."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
"""Anything that `json.loads` can give, NaN and infinities too."""


def any_value(hint: Any, bound: Bound | None = None) -> st.SearchStrategy[Any]:
    """Values of a type hint, given field by field for a dataclass, so that no default hides a field."""
    hint = getattr(hint, "__supertype__", hint)
    if get_origin(hint) is Annotated:
        return any_value(hint.__origin__, hint.__metadata__[0])
    if hint in (str, int, float):
        return _scalar(bound or DEFAULT_BOUNDS[hint])
    if hint is Any:
        return st.none() | st.booleans() | any_value(int) | any_value(float) | any_value(str)
    if hint in (bool, NoneType):
        return st.booleans() if hint is bool else st.none()
    if isinstance(hint, type) and issubclass(hint, Enum):
        return st.sampled_from(hint)
    if is_dataclass(hint):
        hints = get_type_hints(hint, include_extras=True)
        return st.builds(hint, **{field.name: any_value(hints[field.name]) for field in fields(hint)})  # type: ignore[arg-type]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return st.one_of([any_value(argument) for argument in arguments])
    if origin is tuple:
        return st.lists(any_value(arguments[0]), max_size=2).map(tuple)
    assert issubclass(origin, Mapping)
    return st.dictionaries(any_value(str), any_value(arguments[1]), max_size=2)


def _scalar(bound: Bound) -> st.SearchStrategy[Any]:
    if isinstance(bound, Whole):
        return st.integers(bound.least, bound.most)
    if isinstance(bound, Real):
        return st.floats(bound.least, bound.most)
    assert isinstance(bound, Text)
    return st.text(SHOWN if bound.shown else WRITABLE, min_size=bound.least, max_size=10)
