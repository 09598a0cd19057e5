"""Whatever a list lacks, what is decided is what is there."""

from __future__ import annotations

import random
import time
from typing import TypeVar

import pytest

from dstack.app.effects import catalogue as fx
from dstack.app.effects.steps import Steps, ask
from dstack.app.maintenance.blocking_driver import BlockingPerformer
from dstack.app.maintenance.fsck.bucket import check_bucket
from dstack.app.protocol import generations, prune_steps
from dstack.app.protocol.complete_lists import are_there, last_folder, last_number, last_number_now
from dstack.app.protocol.generation_users import users_of
from dstack.app.protocol.jobs import Job, is_wanted, latest_of, stop_of_unwanted
from dstack.app.protocol.liveness import Observer
from dstack.app.protocol.prune_steps import GenerationUse, RemovalResult
from dstack.app.protocol.settlement import is_whole
from dstack.core.format.keys import JobKeys, ProjectKeys
from dstack.core.format.records import Owner, Pin, Result, Tomb, User, pack, unpack
from dstack.model import Fingerprint, Nonce
from tests.support.buckets.late import LateBucket
from tests.support.buckets.memory import MemoryBucket
from tests.support.records.finished import TRAIN, age, finished, generation
from tests.support.records.specs import spec
from tests.support.records.story import ME, Story

KEYS = ProjectKeys.of("p")
SEEDS = range(60)

T = TypeVar("T")


def performed(bucket: MemoryBucket, steps: Steps[fx.BucketPerformer, T]) -> T:
    performer = BlockingPerformer(
        bucket, Observer(bucket, KEYS, sure=lambda _: None, boottime=lambda: 0.0), lambda: "n"
    )
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

    def is_there(number: int) -> Steps[fx.ObjectReader, bool]:
        return (yield from ask(fx.Read(keys.attempt(number).end))) is not None

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
        number, live = performed(LateBucket(there, seed, 0.7), latest_of(keys))
        assert live is not None
        assert (number, live.adoptions) == (2, 2)


@pytest.mark.parametrize("seed", SEEDS)
def test_everybody_who_uses_a_generation_is_found_whatever_a_list_lacks(seed: int) -> None:
    """Some have left, some have ended: as long as one is there a prune takes nothing, and a stop ends no attempt that
    another run waits for."""
    chance = random.Random(seed)
    there = MemoryBucket()
    story = Story(there)
    runs = [story.run(f"run-{number}", TRAIN) for number in range(chance.randrange(2, 6))]
    claimant = runs[0]
    attempt = story.attempt(claimant, TRAIN)
    keys = story.keys.job(story.fingerprint(TRAIN), 1)
    late = LateBucket(there, seed, 0.9)
    jobs = [Job(run=run, spec=TRAIN, fingerprint=keys.fingerprint, project=story.keys) for run in runs]
    for job in jobs[1:]:
        assert not performed(late, generations.record_want(job, keys)).left
        if chance.random() < 0.5:
            assert (
                performed(late, prune_steps.pin_for_reader(keys, Pin(nonce=f"r{job.run.id[:13]}", reader=ME))) is True
            )
    registered = [key for key in there.objects if key.startswith(keys.users)]
    assert sorted(registered) == [keys.user(number) for number in range(1, len(registered) + 1)]
    for run in runs:
        story.stop(run)
    assert performed(late, stop_of_unwanted(jobs[0], attempt)) is not None
    waits = chance.choice(runs[1:])
    there.delete(story.keys.run(waits.id).stop(None))
    for run in runs:
        if run is not waits:
            story.final(run, "stopped", story.outcome(run, TRAIN, "stopped"))
    for _ in range(5):
        assert performed(late, stop_of_unwanted(jobs[0], attempt)) is None
        assert performed(late, is_wanted(story.keys, attempt)) is True
        buried = performed(late, prune_steps.remove_generation(story.keys, keys, Tomb(nonce="t", user="u"), set()))
        assert buried == prune_steps.GenerationRemoval(result=RemovalResult.USED, use=GenerationUse.RUN)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_process_that_reads_is_found_whatever_a_list_lacks_and_nothing_of_the_register_stays(seed: int) -> None:
    there = MemoryBucket()
    story = Story(there)
    finished(story, "one")
    keys, late = generation(story), LateBucket(there, seed, 0.9)
    tomb = Tomb(nonce="t", user="u")
    # Without a heartbeat it has ended; `performed` knows nothing else of it.
    there.put(story.keys.heartbeat(ME.id), b"1")
    for number in range(1, 4):
        assert performed(late, prune_steps.pin_for_reader(keys, Pin(nonce=f"r{number}", reader=ME))) is True
        assert keys.user(number) in there.objects
        for earlier in range(1, number):
            performed(late, prune_steps.unpin_reader(keys, Nonce(f"r{earlier}")))
        assert performed(late, prune_steps.remove_generation(story.keys, keys, tomb, set())).use is GenerationUse.DOUBT
    performed(late, prune_steps.unpin_reader(keys, Nonce("r3")))
    assert performed(there, prune_steps.remove_generation(story.keys, keys, tomb, set())).result is RemovalResult.GONE
    assert there.list(keys.folder) == [keys.tomb]


@pytest.mark.parametrize("body", [b"[]", b"", pack(User(nonce="n", name="../../x")), pack(User(nonce="n", name=""))])
def test_an_entry_that_names_nobody_hides_nobody_behind_it(body: bytes) -> None:
    there = MemoryBucket()
    story = Story(there)
    finished(story, "one")
    keys = generation(story)
    there.create(keys.user(1), body)
    there.put(story.keys.heartbeat(ME.id), b"1")
    assert performed(there, prune_steps.pin_for_reader(keys, Pin(nonce="reader", reader=ME))) is True
    assert performed(there, users_of(keys)) == {"reader"}
