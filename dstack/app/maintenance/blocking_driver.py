"""Performs steps that need no host, one after the other, on a bucket: for commands that keep house."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from dstack.app.protocol import effects as fx
from dstack.app.protocol.lists import reaches_now, sizes_now
from dstack.app.protocol.liveness import Observer
from dstack.ports import Bucket

T = TypeVar("T")
R = TypeVar("R")
AT_ONCE = 8
DELETES_AT_ONCE = 16


class Performer:
    """Blocking; safe to call from several threads. `close` ends its own threads."""

    def __init__(self, bucket: Bucket, observer: Observer, new_nonce: Callable[[], str]) -> None:
        self._bucket = bucket
        self._observer = observer
        self._new_nonce = new_nonce
        self._pool = ThreadPoolExecutor(DELETES_AT_ONCE, thread_name_prefix="delete")

    def take(self, steps: fx.Steps[T]) -> T:
        """Run steps to their end; raises BucketError when the bucket gives no answer."""
        return fx.answered(steps, self._perform)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _perform(self, effect: fx.Effect) -> Any:
        match effect:
            case fx.PutNew(key, body):
                return self._bucket.create(key, body)
            case fx.Read(key):
                return self._bucket.get(key)
            case fx.ListKeys(prefix):
                return self._bucket.list(prefix)
            case fx.Children(prefix):
                return self._bucket.children(prefix)
            case fx.Sizes(prefix):
                return sizes_now(self._bucket, prefix)
            case fx.Reaches(key, size):
                return reaches_now(self._bucket, key, size)
            case fx.Delete(keys):
                for _ in self._pool.map(self._bucket.delete, keys):
                    pass
                return None
            case fx.Pause(seconds):
                return time.sleep(seconds)
            case fx.NewNonce():
                return self._new_nonce()
            case fx.Alive(coordinator):
                return self._observer.alive(coordinator)
        raise AssertionError(f"nothing here needs {effect!r}")


def parallel(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The answers of `work` on each item, AT_ONCE at a time, in order; the first error is raised."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(work, items)
