"""Performs steps that only read, on the spot: for commands that look and change nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from dstack.app.protocol import effects as fx
from dstack.app.protocol.lists import reaches_now, sizes_now
from dstack.ports import Bucket

T = TypeVar("T")


def read_only(steps: fx.Steps[T], bucket: Bucket, *, get: Callable[[str], bytes | None] | None = None) -> T:
    """Run steps that only read to their end; `get` takes the place of `bucket.get`, for callers with a memory."""

    def perform(effect: fx.Effect) -> Any:
        match effect:
            case fx.Read(key):
                return (get or bucket.get)(key)
            case fx.ListKeys(prefix):
                return bucket.list(prefix)
            case fx.Children(prefix):
                return bucket.children(prefix)
            case fx.Sizes(prefix):
                return sizes_now(bucket, prefix)
            case fx.Reaches(key, size):
                return reaches_now(bucket, key, size)
        raise AssertionError(f"steps that only read must not ask for {effect!r}")

    return fx.answered(steps, perform)
