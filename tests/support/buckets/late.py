"""A bucket whose lists come late: each lacks some of what is there, and one by key finds all of it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from dstack.ports import Listed
from tests.support.buckets.memory import MemoryBucket


class LateBucket(MemoryBucket):
    """`rate` of the lists lack `rate` of the keys, chosen by the seed; the same objects as in `there`."""

    def __init__(self, there: MemoryBucket, seed: int, rate: float) -> None:
        super().__init__()
        self.objects = there.objects
        self.times = there.times
        self._chance = random.Random(seed)
        self._rate = rate

    def list(self, prefix: str, *, limit: int | None = None) -> Sequence[str]:
        lacking = self._lacking()
        return [key for key in super().list(prefix) if key not in lacking][:limit]

    def survey(self, prefix: str) -> Iterator[Listed]:
        lacking = self._lacking()
        return (each for each in super().survey(prefix) if each.key not in lacking)

    def children(self, prefix: str, *, limit: int | None = None, after: str = "") -> Sequence[str]:
        lacking = self._lacking()
        tails = (key[len(prefix) :] for key in self.objects if key.startswith(prefix) and key not in lacking)
        names = {tail.partition("/")[0] + ("/" if "/" in tail else "") for tail in tails}
        return sorted(name for name in names if name > after)[:limit]

    def _lacking(self) -> frozenset[str]:
        if self._chance.random() >= self._rate:
            return frozenset()
        return frozenset(key for key in sorted(self.objects) if self._chance.random() < self._rate)
