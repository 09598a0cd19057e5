"""The log in the bucket is the log of the spool, whoever writes it, however often and in whatever pieces."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from dstack.app.protocol import create_if_absent
from dstack.app.transfer import log_pieces
from dstack.app.transfer.log_pieces import LogWriter, stored_length
from dstack.core.format.keys import AttemptKeys, ProjectKeys
from dstack.errors import BucketError
from dstack.model import Fingerprint
from dstack.ports import Put
from tests.support.buckets.memory import MemoryBucket

ATTEMPT: AttemptKeys = ProjectKeys.of("p").job(Fingerprint("f" * 64), 1).attempt(1)


def whole(bucket: MemoryBucket) -> bytes:
    """The log as a follower reads it: the next key is offset + length."""
    found = b""
    while piece := bucket.get(ATTEMPT.log(len(found))):
        found += piece
    return found


async def carry(bucket: MemoryBucket, spool: bytes, chance: random.Random, *, until: int) -> None:
    """One writer that reads the spool from where the bucket has it, in pieces of any size, and dies at `until`."""
    writer = LogWriter(bucket, ATTEMPT, stored_length(bucket, ATTEMPT))
    while writer.received < len(spool):
        if writer.received >= until:
            await writer.close()
            return
        size = chance.randint(1, 60)
        await writer.write(spool[writer.received : writer.received + size])
        if chance.random() < 0.3:
            await writer.push()
        await asyncio.sleep(0)
    await writer.flush()


@pytest.mark.parametrize("seed", range(60))
def test_writers_beside_and_after_one_another_make_one_log(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_pieces, "MAX_LOG_PIECE_BYTES", 100)
    chance = random.Random(seed)
    spool = chance.randbytes(3000)
    bucket = MemoryBucket()

    async def play() -> None:
        deaths = [chance.randint(0, 3000) for _ in range(3)]
        await asyncio.gather(*(carry(bucket, spool, random.Random(chance.random()), until=death) for death in deaths))
        await carry(bucket, spool, chance, until=10**9)

    asyncio.run(play())
    assert whole(bucket) == spool


class LosingBucket(MemoryBucket):
    """Says nothing certain of any write, and drops every third."""

    count = 0

    def create(self, key: str, body: bytes) -> Put:
        self.count += 1
        if self.count % 3:
            super().create(key, body)
        return Put.UNKNOWN


def test_lost_answers_neither_lose_nor_repeat_a_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_pieces, "MAX_LOG_PIECE_BYTES", 100)
    bucket, spool = LosingBucket(), random.Random(1).randbytes(2000)
    asyncio.run(carry(bucket, spool, random.Random(2), until=10**9))
    assert whole(bucket) == spool


class DeafBucket(MemoryBucket):
    trouble = "s3://deaf said: no room"

    def create(self, key: str, body: bytes) -> Put:
        return Put.UNKNOWN


def test_a_bucket_that_never_takes_a_piece_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(create_if_absent, "LONGEST_PAUSE_S", 0.01)
    with pytest.raises(BucketError, match=r"neither accepts nor shows .*; s3://deaf said: no room"):
        asyncio.run(carry(DeafBucket(), b"x" * 100, random.Random(0), until=10**9))


def test_a_log_that_never_rests_makes_few_pieces_in_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Early ones come at once; a day makes no more than an object for each ten seconds."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    bucket = MemoryBucket()
    pieces = []

    async def play() -> None:
        writer = LogWriter(bucket, ATTEMPT, 0)
        for second in (10, 3600, 2 * 3600):
            while now[0] < 1000.0 + second:
                now[0] += 0.25
                await writer.write(b"line\n")
            pieces.append(len(bucket.list(ATTEMPT.logs)))
        await writer.flush()

    asyncio.run(play())
    early, hour, two = pieces
    assert early >= 12
    assert hour < 1000 - 240, "heartbeats are 240 more"
    assert two - hour <= 361
    assert whole(bucket) == b"line\n" * (2 * 3600 * 4)
