"""The loop that takes steps: answers go back to the step that asked, and errors of a bucket are raised there."""

from __future__ import annotations

import asyncio

import pytest

from dstack.app.effects.catalogue import ObjectReader, Read
from dstack.app.effects.steps import Steps, ask, on_the_spot, take, take_now
from dstack.app.protocol.bucket_performer import BlockingReader
from dstack.app.transfer.threaded_bucket import ThreadedCreator
from dstack.errors import BucketError
from tests.support.buckets.memory import MemoryBucket


class AwayBucket(MemoryBucket):
    """Gives no answer for `away`."""

    def get(self, key: str) -> bytes | None:
        if key == "away":
            raise BucketError("the bucket is away")
        return super().get(key)


def both(first: str, second: str) -> Steps[ObjectReader, tuple[bytes | None, bytes | None]]:
    return (yield from ask(Read(first))), (yield from ask(Read(second)))


def with_a_way_on() -> Steps[ObjectReader, str]:
    try:
        yield from ask(Read("away"))
    except BucketError as error:
        found = yield from ask(Read("a"))
        return f"{error}; {found!r}"
    return "no error"


@pytest.fixture
def bucket() -> MemoryBucket:
    made = AwayBucket()
    made.create("a", b"1")
    made.create("b", b"2")
    return made


def test_each_answer_goes_to_the_step_that_asked(bucket: MemoryBucket) -> None:
    assert take_now(both("b", "a"), BlockingReader(bucket)) == (b"2", b"1")
    assert asyncio.run(take(both("a", "nothing"), ThreadedCreator(bucket))) == (b"1", None)


def test_an_error_of_the_bucket_is_raised_in_the_step_that_asked(bucket: MemoryBucket) -> None:
    assert take_now(with_a_way_on(), BlockingReader(bucket)) == "the bucket is away; b'1'"
    with pytest.raises(BucketError, match="away"):
        take_now(both("a", "away"), BlockingReader(bucket))


def test_any_other_error_ends_the_steps() -> None:
    class Broken(BlockingReader):
        async def read(self, effect: Read, /) -> bytes | None:
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        take_now(with_a_way_on(), Broken(MemoryBucket()))


def test_a_performer_that_waits_cannot_be_run_on_the_spot() -> None:
    with pytest.raises(AssertionError, match="must not wait"):
        on_the_spot(asyncio.sleep(0))
