"""Small Hypothesis strategies for any type hint that records use; floats are finite, as JSON wants them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(max_size=10)
SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    int: st.integers(),
    float: FINITE,
    bool: st.booleans(),
    NoneType: st.none(),
    Any: st.none() | st.booleans() | st.integers() | FINITE | TEXT,
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
"""Anything that `json.loads` can give, NaN and infinities too."""


def any_value(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type hint, given field by field for a dataclass, so that no default hides a field."""
    hint = getattr(hint, "__supertype__", hint)
    if hint in SCALARS:
        return SCALARS[hint]
    if isinstance(hint, type) and issubclass(hint, Enum):
        return st.sampled_from(hint)
    if is_dataclass(hint):
        hints = get_type_hints(hint)
        return st.builds(hint, **{field.name: any_value(hints[field.name]) for field in fields(hint)})  # type: ignore[arg-type]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return st.one_of([any_value(argument) for argument in arguments])
    if origin is tuple:
        return st.lists(any_value(arguments[0]), max_size=2).map(tuple)
    assert issubclass(origin, Mapping)
    return st.dictionaries(TEXT, any_value(arguments[1]), max_size=2)
