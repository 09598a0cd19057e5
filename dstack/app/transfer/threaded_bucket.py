"""Performs the effects on a bucket beside an event loop: each request in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from dstack.app.effects.catalogue import BucketTrouble, Children, Delete, ListKeys, Pause, PutNew, Reaches, Read, Sizes
from dstack.app.protocol.complete_lists import reaches_now, sizes_now
from dstack.ports import Bucket, Put


class ThreadedCreator:
    """An `ObjectCreator` and a `BucketReader`."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def put_new(self, effect: PutNew, /) -> Put:
        return await asyncio.to_thread(self._bucket.create, effect.key, effect.body)

    async def bucket_trouble(self, effect: BucketTrouble, /) -> str:
        return self._bucket.trouble

    async def read(self, effect: Read, /) -> bytes | None:
        return await asyncio.to_thread(self._bucket.get, effect.key)

    async def list_keys(self, effect: ListKeys, /) -> Sequence[str]:
        return await asyncio.to_thread(self._bucket.list, effect.prefix)

    async def children(self, effect: Children, /) -> Sequence[str]:
        return await asyncio.to_thread(self._bucket.children, effect.prefix)

    async def sizes(self, effect: Sizes, /) -> Mapping[str, int]:
        return await asyncio.to_thread(sizes_now, self._bucket, effect.prefix)

    async def reaches(self, effect: Reaches, /) -> bool:
        return await asyncio.to_thread(reaches_now, self._bucket, effect.key, effect.size)

    async def delete(self, effect: Delete, /) -> None:
        for key in effect.keys:
            await asyncio.to_thread(self._bucket.delete, key)

    async def pause(self, effect: Pause, /) -> None:
        await asyncio.sleep(effect.seconds)
