"""Who uses a generation, and when a run has ended for ever: what a prune asks before it deletes."""

from __future__ import annotations

import pytest

from dstack.app.effects import catalogue as fx
from dstack.app.effects.answers import Liveness
from dstack.app.protocol.bucket_performer import read_only
from dstack.app.protocol.prune_steps import (
    GenerationUse,
    RemovalResult,
    forget_run,
    has_ended,
    pin_for_reader,
    remove_generation,
    user_of,
)
from dstack.core.format.keys import JobKeys
from dstack.core.format.records import Pin, RunRecord, Tomb, pack
from dstack.model import RunId
from tests.support.buckets.memory import MemoryBucket
from tests.support.records.specs import spec
from tests.support.records.story import ME, Story
from tests.support.simulator.fed_steps import play

TRAIN = spec("train")
TOMB = Tomb(nonce="t", user="alice")


class Kept:
    """A generation that one run wants."""

    def __init__(self) -> None:
        self.bucket = MemoryBucket()
        self.story = Story(self.bucket)
        self.run: RunRecord = self.story.run("one", TRAIN)
        self.keys: JobKeys = self.story.attempt(self.run, TRAIN).generation
        self.ended: set[RunId] = set()

    def use(self, liveness: Liveness = Liveness.DEAD) -> GenerationUse:
        steps = user_of(self.story.keys, self.keys, self.ended)
        return play(steps, self.bucket, {fx.Alive: liveness})[0]


@pytest.fixture
def kept() -> Kept:
    return Kept()


def test_a_run_uses_what_it_came_to_until_it_has_ended_and_that_is_remembered(kept: Kept) -> None:
    assert kept.use() is GenerationUse.RUN
    kept.story.final(kept.run, "failed")
    assert kept.use() is GenerationUse.NONE
    assert kept.ended == {kept.run.id}
    kept.bucket.requests.clear()
    assert kept.use() is GenerationUse.NONE


@pytest.mark.parametrize(
    ("liveness", "use"),
    [
        (Liveness.ALIVE, GenerationUse.READER),
        (Liveness.UNKNOWN, GenerationUse.DOUBT),
        (Liveness.DEAD, GenerationUse.NONE),
    ],
)
def test_a_reader_uses_what_it_has_pinned_for_as_long_as_it_may_live(
    kept: Kept, liveness: Liveness, use: GenerationUse
) -> None:
    kept.story.final(kept.run, "failed")
    assert play(pin_for_reader(kept.keys, Pin(nonce="reader", reader=ME)), kept.bucket)[0]
    assert kept.use(liveness) is use


def test_a_pin_that_names_no_reader_is_a_doubt(kept: Kept) -> None:
    kept.story.final(kept.run, "failed")
    play(pin_for_reader(kept.keys, Pin(nonce="reader")), kept.bucket)
    assert kept.use() is GenerationUse.DOUBT


def test_a_reader_that_comes_behind_the_tomb_lets_go_at_once(kept: Kept) -> None:
    kept.bucket.create(kept.keys.tomb, pack(TOMB))
    assert not play(pin_for_reader(kept.keys, Pin(nonce="reader", reader=ME)), kept.bucket)[0]
    assert kept.keys.pin("reader") not in kept.bucket.objects


def test_a_generation_in_use_is_not_even_closed(kept: Kept) -> None:
    before = dict(kept.bucket.objects)
    removal, asked = play(remove_generation(kept.story.keys, kept.keys, TOMB, set()), kept.bucket)
    assert (removal.result, removal.use, removal.deleted) == (RemovalResult.USED, GenerationUse.RUN, 0)
    assert "PutNew" not in asked
    assert kept.bucket.objects == before


def test_of_a_removed_generation_only_the_tomb_is_left(kept: Kept) -> None:
    kept.story.final(kept.run, "failed")
    removal, _ = play(remove_generation(kept.story.keys, kept.keys, TOMB, set()), kept.bucket)
    assert removal.result is RemovalResult.GONE
    assert kept.bucket.list(kept.keys.folder) == [kept.keys.tomb]


def test_a_run_has_ended_with_its_summary_or_without_its_record(kept: Kept) -> None:
    keys = kept.story.keys.run(kept.run.id)
    assert not read_only(has_ended(keys), kept.bucket)
    kept.bucket.delete(keys.record)
    assert read_only(has_ended(keys), kept.bucket), "a prune that broke off: nobody works on it again"


def test_the_records_of_a_run_that_goes_on_are_not_forgotten(kept: Kept) -> None:
    before = dict(kept.bucket.objects)
    assert play(forget_run(kept.story.keys, kept.run.id), kept.bucket)[0] == 0
    assert kept.bucket.objects == before
