"""Performs the effects on a bucket by calls that block: for threads, and for commands without an event loop."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TypeVar

from dstack.app.effects.catalogue import (
    BucketReader,
    BucketTrouble,
    Children,
    ListKeys,
    Pause,
    PutNew,
    Reaches,
    Read,
    Sizes,
)
from dstack.app.effects.steps import Steps, take_now
from dstack.app.protocol.complete_lists import reaches_now, sizes_now
from dstack.ports import Bucket, Put

T = TypeVar("T")


class BlockingReader:
    """A `BucketReader` whose coroutines never wait: `steps.take_now` runs them."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def read(self, effect: Read, /) -> bytes | None:
        return self._bucket.get(effect.key)

    async def list_keys(self, effect: ListKeys, /) -> Sequence[str]:
        return self._bucket.list(effect.prefix)

    async def children(self, effect: Children, /) -> Sequence[str]:
        return self._bucket.children(effect.prefix)

    async def sizes(self, effect: Sizes, /) -> Mapping[str, int]:
        return sizes_now(self._bucket, effect.prefix)

    async def reaches(self, effect: Reaches, /) -> bool:
        return reaches_now(self._bucket, effect.key, effect.size)


class BlockingCreator(BlockingReader):
    """The same, and an `ObjectCreator`."""

    async def put_new(self, effect: PutNew, /) -> Put:
        return self._bucket.create(effect.key, effect.body)

    async def bucket_trouble(self, effect: BucketTrouble, /) -> str:
        return self._bucket.trouble

    async def pause(self, effect: Pause, /) -> None:
        time.sleep(effect.seconds)  # noqa: ASYNC251 - no event loop runs this


def read_only(steps: Steps[BucketReader, T], bucket: Bucket) -> T:
    """Run steps that only read to their end."""
    return take_now(steps, BlockingReader(bucket))
