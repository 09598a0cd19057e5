"""Lists made complete by reading keys: a store may leave new objects out of a list.

Objects with numbers without gaps, and objects with known names, are asked for by key where a list lacks them. So a late
list costs requests and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from dstack.app.effects.catalogue import BucketReader, Children, ListKeys, Reaches, Read, Sizes
from dstack.app.effects.steps import Steps, ask
from dstack.core.format.key_parser import numbers
from dstack.errors import DamagedObjectError
from dstack.ports import Bucket

KeyOf = Callable[[int], str]
"""Number from 1 -> key."""


def last_number(folder: str, key_of: KeyOf) -> Steps[BucketReader, int]:
    """The highest number of the objects `key_of(1)`, `key_of(2)`, …, which stand in `folder`; 0 without any."""
    number = _highest((yield from ask(ListKeys(folder))))
    while (yield from ask(Read(key_of(number + 1)))) is not None:
        number += 1
    return number


def last_number_now(bucket: Bucket, folder: str, key_of: KeyOf) -> int:
    """The same, blocking."""
    number = _highest(bucket.list(folder))
    while bucket.get(key_of(number + 1)) is not None:
        number += 1
    return number


def last_folder(folder: str, is_there: Callable[[int], Steps[BucketReader, bool]]) -> Steps[BucketReader, int]:
    """The highest number of the numbered folders in `folder`, where `is_there` asks for one by key; at least 1."""
    number = max(1, _highest((yield from ask(Children(folder)))))
    while (yield from is_there(number + 1)):
        number += 1
    return number


def are_there(folder: str, sizes: Mapping[str, int]) -> Steps[BucketReader, bool]:
    """Whether each of these objects of `folder` (key -> bytes, at least 1) is there with exactly its size."""
    if not sizes:
        return True
    found = yield from ask(Sizes(folder))
    for key, size in sizes.items():
        if key in found and found[key] != size:
            return False
        if key not in found and not (yield from ask(Reaches(key, size))):
            return False
    return True


def sizes_now(bucket: Bucket, folder: str) -> dict[str, int]:
    """The answer to the effect Sizes, blocking."""
    return {each.key: each.size for each in bucket.survey(folder)}


def reaches_now(bucket: Bucket, key: str, size: int) -> bool:
    """The answer to the effect Reaches, blocking: the last byte is read."""
    try:
        for _ in bucket.read(key, size - 1, 1):
            pass
    except DamagedObjectError:
        return False
    return True


def _highest(names: Iterable[str]) -> int:
    return max(numbers(names), default=0)
