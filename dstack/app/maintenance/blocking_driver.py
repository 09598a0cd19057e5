"""Performs steps that need no host, one after the other, on a bucket: for commands that keep house."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from dstack.app.effects.answers import Liveness
from dstack.app.effects.catalogue import Alive, BucketPerformer, Delete, NewNonce
from dstack.app.effects.steps import Steps, take_now
from dstack.app.protocol.bucket_performer import BlockingCreator
from dstack.app.protocol.liveness import Observer
from dstack.model import Nonce
from dstack.ports import Bucket

T = TypeVar("T")
R = TypeVar("R")
PARALLEL_WORKERS = 8
PARALLEL_DELETES = 16


class BlockingPerformer(BlockingCreator):
    """A `BucketPerformer`; safe to call from several threads. `close` ends its own threads."""

    def __init__(self, bucket: Bucket, observer: Observer, new_nonce: Callable[[], str]) -> None:
        super().__init__(bucket)
        self._observer = observer
        self._new_nonce = new_nonce
        self._pool = ThreadPoolExecutor(PARALLEL_DELETES, thread_name_prefix="delete")

    def take(self, steps: Steps[BucketPerformer, T]) -> T:
        """Run steps to their end; raises BucketError when the bucket gives no answer."""
        return take_now(steps, self)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def delete(self, effect: Delete, /) -> None:
        for _ in self._pool.map(self._bucket.delete, effect.keys):
            pass

    async def new_nonce(self, effect: NewNonce, /) -> Nonce:
        return Nonce(self._new_nonce())

    async def alive(self, effect: Alive, /) -> Liveness:
        return self._observer.alive(effect.coordinator)


def parallel(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The answers of `work` on each item, PARALLEL_WORKERS at a time, in order; the first error is raised."""
    with ThreadPoolExecutor(PARALLEL_WORKERS) as pool:
        yield from pool.map(work, items)
