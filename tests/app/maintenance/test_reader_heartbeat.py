"""The heartbeat of a process that reads: there before `begin` returns, changing, and gone after `end`."""

from __future__ import annotations

import time

import pytest

from dstack.app.maintenance.reader_heartbeat import ReaderHeartbeat
from dstack.errors import BucketError
from tests.support.buckets.memory import MemoryBucket

KEY = "projects/p/coordinators/reader/hb"


class Refusing(MemoryBucket):
    """Takes the first `taken` writes."""

    def __init__(self, taken: int) -> None:
        super().__init__()
        self.taken = taken
        self.asked = 0

    def put(self, key: str, body: bytes) -> None:
        self.asked += 1
        if self.asked > self.taken:
            raise BucketError("the store is away")
        super().put(key, body)


def wait_for_change(bucket: MemoryBucket, seen: bytes | None) -> bytes | None:
    deadline = time.monotonic() + 20
    while bucket.get(KEY) == seen and time.monotonic() < deadline:
        time.sleep(0.005)
    return bucket.get(KEY)


def test_it_stands_at_once_changes_and_goes() -> None:
    bucket = MemoryBucket()
    heartbeat = ReaderHeartbeat(bucket, KEY, interval=0.01)
    heartbeat.begin()
    first = bucket.get(KEY)
    assert first is not None
    assert wait_for_change(bucket, first) not in (None, first)
    heartbeat.end()
    assert bucket.get(KEY) is None
    time.sleep(0.05)
    assert bucket.get(KEY) is None, "a beat came after the end"


def test_a_first_beat_that_fails_is_told_and_later_ones_are_not() -> None:
    with pytest.raises(BucketError):
        ReaderHeartbeat(Refusing(0), KEY).begin()
    bucket = Refusing(1)
    heartbeat = ReaderHeartbeat(bucket, KEY, interval=0.01)
    heartbeat.begin()
    deadline = time.monotonic() + 20
    while bucket.asked < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert bucket.asked >= 3
    heartbeat.end()


def test_the_end_of_a_heartbeat_that_never_began_does_no_harm() -> None:
    ReaderHeartbeat(MemoryBucket(), KEY).end()
