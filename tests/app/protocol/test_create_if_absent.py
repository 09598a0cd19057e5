"""What stands after a create, whatever the store answers: one rule for steps, threads and commands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from dstack.app.effects import catalogue as fx
from dstack.app.effects.steps import Effect, take
from dstack.app.protocol import create_if_absent
from dstack.app.protocol.create_if_absent import create, create_now, create_or_read, read_record
from dstack.app.transfer.threaded_bucket import ThreadedCreator
from dstack.core.format.records import Stop, pack
from dstack.errors import BucketError, UndecidedError
from dstack.ports import Put
from tests.support.buckets.memory import MemoryBucket
from tests.support.simulator.fed_steps import feed

MINE, OTHERS = b"mine", b"another writer's"


class Store:
    """Gives these answers to creates and reads, one after the other, and keeps what it was asked."""

    def __init__(self, puts: list[Put], reads: list[bytes | None]) -> None:
        self.puts, self.reads = iter(puts), iter(reads)
        self.asked: list[str] = []
        self.pauses: list[float] = []

    def answer(self, effect: Effect[Any, Any]) -> object:
        self.asked.append(type(effect).__name__)
        match effect:
            case fx.PutNew("key", body):
                assert body == MINE
                return next(self.puts)
            case fx.Read("key"):
                return next(self.reads)
            case fx.Pause(seconds):
                self.pauses.append(seconds)
                return None
            case fx.BucketTrouble():
                return "s3://lab said: slow down"
        raise AssertionError(effect)


def test_a_created_object_is_not_read_again() -> None:
    store = Store([Put.CREATED], [])
    assert feed(create("key", MINE), store.answer)
    assert store.asked == ["PutNew"]


@pytest.mark.parametrize("put", [Put.EXISTS, Put.UNKNOWN])
@pytest.mark.parametrize("there", [MINE, OTHERS])
def test_after_any_other_answer_the_object_itself_decides(put: Put, there: bytes) -> None:
    store = Store([put], [there])
    assert feed(create("key", MINE), store.answer) is (there == MINE)
    assert feed(create_or_read("key", MINE), Store([put], [there]).answer) == there
    assert store.asked == ["PutNew", "Read"]


@pytest.mark.parametrize("put", [Put.EXISTS, Put.UNKNOWN])
def test_where_nothing_is_there_the_create_is_made_again_after_a_pause(put: Put) -> None:
    store = Store([put, put, Put.CREATED], [None, None])
    assert feed(create("key", MINE), store.answer)
    assert store.pauses == [0.05, 0.1]


def test_a_store_that_leaves_it_open_is_told_with_its_trouble_and_a_hint() -> None:
    tries = create_if_absent.CREATE_ATTEMPTS
    store = Store([Put.UNKNOWN] * tries, [None] * tries)
    with pytest.raises(UndecidedError, match="neither accepts nor shows key; s3://lab said: slow down") as caught:
        feed(create("key", MINE, hint="ask Alice"), store.answer)
    assert caught.value.hint == "ask Alice"
    assert store.asked.count("PutNew") == tries
    assert store.asked[-1] == "BucketTrouble", "nobody waits after the last attempt"
    assert store.pauses == sorted(store.pauses)
    assert store.pauses[-1] <= create_if_absent.LONGEST_PAUSE_S


def test_an_error_of_the_store_is_none_of_the_rule() -> None:
    def away(effect: Effect[Any, Any]) -> object:
        raise BucketError("away")

    with pytest.raises(BucketError, match="away"):
        feed(create("key", MINE), away)


def in_threads(bucket: MemoryBucket, key: str, body: bytes) -> bool:
    return asyncio.run(take(create(key, body), ThreadedCreator(bucket)))


@pytest.mark.parametrize("creator", [create_now, in_threads])
def test_every_performer_of_the_rule_reads_back_what_an_answer_was_lost_of(
    creator: Callable[[MemoryBucket, str, bytes], bool],
) -> None:
    bucket = MemoryBucket()
    bucket.lose = 1
    assert creator(bucket, "a/key", MINE), "the answer was lost, and the object is ours"
    assert creator(bucket, "a/key", MINE), "it is there already, and ours"
    assert not creator(bucket, "a/key", OTHERS)
    assert bucket.objects == {"a/key": MINE}


def test_a_record_that_was_seen_and_is_gone_is_an_error() -> None:
    stop = Stop(nonce="n", user="alice", reason="")
    assert feed(read_record(Stop, "key"), Store([], [pack(stop)]).answer) == stop
    with pytest.raises(BucketError, match="key is gone"):
        feed(read_record(Stop, "key"), Store([], [None]).answer)
