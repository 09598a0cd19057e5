"""Reads of artifacts while others may prune."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dstack.app.maintenance.blocking_driver import BlockingPerformer
from dstack.app.maintenance.pinned_read import pinned
from dstack.app.protocol.liveness import Observer
from dstack.core.format.keys import AttemptKeys
from dstack.core.format.records import Tomb, pack
from dstack.errors import BucketError, NotFoundError
from dstack.model import Nonce
from dstack.ports import Put
from tests.support.buckets.memory import MemoryBucket
from tests.support.records.specs import spec
from tests.support.records.story import ME, Story

TRAIN = spec("train")


class ReadOnly(MemoryBucket):
    """Refuses writes once it is `closed`."""

    closed = False

    def put(self, key: str, body: bytes) -> None:
        if self.closed:
            raise BucketError("access denied")
        super().put(key, body)


@pytest.fixture
def bucket() -> ReadOnly:
    return ReadOnly()


@pytest.fixture
def story(bucket: ReadOnly) -> Story:
    return Story(bucket)


@pytest.fixture
def attempt(story: Story) -> AttemptKeys:
    return story.attempt(story.run("one", TRAIN), TRAIN)


@pytest.fixture
def performer(story: Story) -> Iterator[BlockingPerformer]:
    observer = Observer(story.bucket, story.keys, sure=lambda _: None, boottime=lambda: 0.0)
    made = BlockingPerformer(story.bucket, observer, lambda: "nonce")
    yield made
    made.close()


def test_inside_the_block_a_pin_and_a_heartbeat_stand_and_afterwards_neither(
    story: Story, performer: BlockingPerformer, attempt: AttemptKeys
) -> None:
    heartbeat, pin = story.keys.heartbeat(ME.id), attempt.generation.pin(ME.id)
    attempts = [attempt, attempt]
    with pinned(story.bucket, story.keys, performer, ME, attempts=attempts, notify=pytest.fail):
        assert story.bucket.get(heartbeat) is not None
        assert story.bucket.get(pin) is not None
    assert story.bucket.get(heartbeat) is None
    assert story.bucket.get(pin) is None


def test_the_heartbeat_stands_before_the_first_pin(
    bucket: ReadOnly, story: Story, performer: BlockingPerformer, attempt: AttemptKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    beating: list[bool] = []
    create = bucket.create

    def watched(key: str, body: bytes) -> Put:
        beating.append(bucket.get(story.keys.heartbeat(ME.id)) is not None)
        return create(key, body)

    monkeypatch.setattr(bucket, "create", watched)
    with pinned(bucket, story.keys, performer, ME, attempts=[attempt], notify=pytest.fail):
        pass
    assert beating
    assert all(beating)


def test_a_prune_that_has_begun_is_told_and_leaves_nothing_pinned(
    story: Story, performer: BlockingPerformer, attempt: AttemptKeys
) -> None:
    story.put(attempt.generation.tomb, pack(Tomb(nonce=Nonce("t"), user="bob")))
    with (
        pytest.raises(NotFoundError, match="being pruned"),
        pinned(story.bucket, story.keys, performer, ME, attempts=[attempt], notify=pytest.fail),
    ):
        pytest.fail("the block runs")
    assert story.bucket.get(attempt.generation.pin(ME.id)) is None
    assert story.bucket.get(story.keys.heartbeat(ME.id)) is None


def test_a_user_who_may_not_write_reads_without_pins_and_is_told(
    bucket: ReadOnly, story: Story, performer: BlockingPerformer, attempt: AttemptKeys
) -> None:
    bucket.closed = True
    told: list[str] = []
    with pinned(bucket, story.keys, performer, ME, attempts=[attempt], notify=told.append):
        assert bucket.get(attempt.generation.pin(ME.id)) is None
    assert told == ["reading without a pin, so that `dstack prune` may interfere: access denied"]
