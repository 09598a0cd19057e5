"""Whatever a list lacks, what is decided is what is there."""

from __future__ import annotations

import random
import time

import pytest

from dstack.app import effects as fx
from dstack.app.checking import check_bucket
from dstack.app.jobs import latest_of
from dstack.app.listing import are_there, last_folder, last_number, last_number_now
from dstack.app.observing import Observer
from dstack.app.performing import Performer
from dstack.app.settling import is_whole
from dstack.core.keys import JobKeys, ProjectKeys
from dstack.core.records import Owner, Result, pack, unpack
from dstack.model import Fingerprint
from tests.app.bucket_story import ME, Story, spec
from tests.app.test_checking import age
from tests.app.test_pruning import TRAIN, finished, generation
from tests.fakes.bucket_late import LateBucket
from tests.fakes.bucket_memory import MemoryBucket

KEYS = ProjectKeys.of("p")
SEEDS = range(60)


def performed(bucket: MemoryBucket, steps: fx.Steps[object]) -> object:
    performer = Performer(bucket, Observer(bucket, KEYS, sure=lambda _: None, boottime=lambda: 0.0), lambda: "n")
    try:
        return performer.take(steps)
    finally:
        performer.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_last_of_numbered_objects_is_found_whatever_a_list_lacks(seed: int) -> None:
    chance = random.Random(seed)
    there, count = MemoryBucket(), chance.randrange(6)
    keys = JobKeys(KEYS.root, Fingerprint("f" * 64), 1)
    for number in range(1, count + 1):
        there.create(keys.attempt(number).claim, b"x")
    late = LateBucket(there, seed, 0.7)
    assert performed(late, last_number(keys.claims, lambda number: keys.attempt(number).claim)) == count
    assert last_number_now(late, keys.claims, lambda number: keys.attempt(number).claim) == count

    def is_there(number: int) -> fx.Steps[bool]:
        return (yield fx.Read(keys.attempt(number).end)) is not None

    for number in range(1, count + 1):
        there.create(keys.attempt(number).end, b"x")
    assert performed(late, last_folder(f"{keys.folder}a/", is_there)) == max(1, count)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_there_is_whole_and_what_is_cut_or_gone_is_not(seed: int) -> None:
    chance = random.Random(seed)
    there = MemoryBucket()
    sizes = {f"a/{name}": chance.randrange(1, 9) for name in "xyz"}
    for key, size in sizes.items():
        there.create(key, b"b" * size)
    late = LateBucket(there, seed, 0.7)
    assert performed(late, are_there("a/", sizes)) is True
    victim = chance.choice(sorted(sizes))
    there.put(victim, b"b" * (sizes[victim] - 1))
    assert performed(late, are_there("a/", sizes)) is False
    there.delete(victim)
    assert performed(late, are_there("a/", sizes)) is False


@pytest.mark.parametrize("seed", SEEDS)
def test_a_late_list_makes_nothing_of_a_good_bucket_damaged(seed: int) -> None:
    there = MemoryBucket()
    story = Story(there)
    finished(story, "one")
    finished(story, "two", spec("other", script="x"))
    story.put("dstack.json", b"{}")
    age(story)
    late = LateBucket(there, seed, 0.5)
    assert list(check_bucket(late, now=time.time(), deep=True, pause=0.0)) == []
    keys = generation(story)
    result = unpack(Result, keys.result, there.get(keys.result) or b"")
    assert performed(late, is_whole(keys.attempt(result.attempt), result)) is True


def test_who_looks_after_an_attempt_is_the_last_who_adopted_it_whatever_a_list_lacks() -> None:
    there = MemoryBucket()
    story = Story(there)
    record = story.run("one", TRAIN)
    story.attempt(record, TRAIN)
    attempt = story.attempt(record, TRAIN, 2)
    for index in (1, 2):
        there.create(attempt.owner(index), pack(Owner(nonce=f"o{index}", coordinator=ME)))
    keys = story.keys.job(story.fingerprint(TRAIN), 1)
    for seed in SEEDS:
        number, live = performed(LateBucket(there, seed, 0.7), latest_of(keys))  # type: ignore[misc]
        assert (number, live.adoptions) == (2, 2)
