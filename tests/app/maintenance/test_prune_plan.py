"""Pruning a bucket in memory: what goes, in which order, and who is in the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from dstack.app.effects import catalogue as fx
from dstack.app.effects.answers import JobRunning, NotCollected, Silence, SlotHeld
from dstack.app.effects.steps import Effect, Steps
from dstack.app.maintenance import prune_plan
from dstack.app.maintenance.blocking_driver import BlockingPerformer
from dstack.app.maintenance.bucket_survey import survey
from dstack.app.maintenance.prune_plan import UNREFERENCED_GRACE_S, PrunePlan, Pruner
from dstack.app.protocol import attempts, generations, liveness, prune_steps
from dstack.app.protocol.bucket_performer import read_only
from dstack.app.protocol.jobs import Job
from dstack.app.protocol.liveness import Observer
from dstack.app.protocol.prune_steps import GenerationUse, RemovalResult
from dstack.core.format.records import Claim, End, Pin, Tomb, Want, Why, pack, unpack
from dstack.core.retention import PrunePolicy
from dstack.errors import BucketError
from dstack.model import ExitReport, Nonce
from tests.support.buckets.memory import MemoryBucket
from tests.support.records.finished import TRAIN, finished, generation
from tests.support.records.specs import spec
from tests.support.records.story import ME, Story

TOMB = Tomb(nonce="t", user="alice")
DAY = 86400.0


class Watched(MemoryBucket):
    """Remembers the order in which objects went, and may die after some of them."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: list[str] = []
        self.last: int | None = None

    def delete(self, key: str) -> None:
        if self.last is not None and len(self.gone) >= self.last:
            raise BucketError("the machine dies here")
        super().delete(key)
        self.gone.append(key)


@pytest.fixture
def bucket() -> Watched:
    return Watched()


@pytest.fixture
def story(bucket: Watched) -> Story:
    return Story(bucket)


@pytest.fixture
def performer(bucket: Watched, story: Story) -> Iterator[BlockingPerformer]:
    counter = iter(range(10**6))
    alive: dict[str, bool | None] = {}
    observer = Observer(bucket, story.keys, sure=lambda other: alive.get(other.id), boottime=time.monotonic)
    made = BlockingPerformer(bucket, observer, lambda: f"n{next(counter)}")
    made.known_to_live = alive  # type: ignore[attr-defined]
    yield made
    made.close()


def bury(story: Story, performer: BlockingPerformer) -> prune_steps.GenerationRemoval:
    return performer.take(prune_steps.remove_generation(story.keys, generation(story), TOMB, set()))


def test_the_result_goes_first_then_the_manifest_then_the_bytes(
    bucket: Watched, story: Story, performer: BlockingPerformer
) -> None:
    finished(story, "one")
    before = {key for key in bucket.objects if key.startswith(generation(story).folder)}
    removal = bury(story, performer)
    assert (removal.result, removal.deleted) == (RemovalResult.GONE, len(before))
    assert bucket.gone[0] == generation(story).result
    assert bucket.gone[1] == generation(story).attempt(1).manifest
    assert {key.split("/")[5] for key in bucket.gone[-2:]} == {"wants", "pins"}
    assert bucket.list(generation(story).folder) == [generation(story).tomb]


def test_a_run_that_has_not_ended_keeps_what_it_uses_and_nothing_is_written(
    bucket: Watched, story: Story, performer: BlockingPerformer
) -> None:
    finished(story, "one", final=False)
    before = dict(bucket.objects)
    removal = bury(story, performer)
    assert (removal.result, removal.use) == (RemovalResult.USED, GenerationUse.RUN)
    assert bucket.objects == before


def test_a_run_that_pins_between_tomb_and_second_look_keeps_it(
    bucket: Watched, story: Story, performer: BlockingPerformer
) -> None:
    finished(story, "one")
    late = story.run("two", TRAIN)
    create = bucket.create

    def create_and_be_overtaken(key: str, body: bytes):  # type: ignore[no-untyped-def]
        answer = create(key, body)
        if key.endswith("/tomb"):
            create(generation(story).pin(late.id), pack(Pin(nonce="late")))
        return answer

    bucket.create = create_and_be_overtaken  # type: ignore[method-assign]
    assert bury(story, performer).result is RemovalResult.USED
    assert generation(story).result in bucket.objects
    bucket.create = create  # type: ignore[method-assign]
    bucket.put(
        generation(story).want(late.id), pack(Want(nonce="w", run=late.id, workflow=late.workflow, ended=0, left=True))
    )
    assert bury(story, performer).result is RemovalResult.GONE


def test_what_a_prune_that_died_left_is_finished_by_the_next(
    bucket: Watched, story: Story, performer: BlockingPerformer
) -> None:
    finished(story, "one")
    total = len(bucket.list(generation(story).folder))
    for last in range(1, total):
        bucket.last = last
        with pytest.raises(BucketError, match="dies here"):
            bury(story, performer)
        assert generation(story).result not in bucket.objects
    bucket.last = None
    plan = planned(bucket, story, performer, PrunePolicy(), now=time.time())
    assert [each.reason for each in plan.generations] == ["a prune began it"]
    housekeeper(bucket, story, performer).prune(plan, say=print)
    assert bucket.list(generation(story).folder) == [generation(story).tomb]


def housekeeper(bucket: Watched, story: Story, performer: BlockingPerformer) -> Pruner:
    return Pruner(bucket, story.keys, performer, user="alice")


def planned(
    bucket: Watched,
    story: Story,
    performer: BlockingPerformer,
    policy: PrunePolicy,
    *,
    now: float,
    **more: frozenset[str],
) -> PrunePlan:
    return housekeeper(bucket, story, performer).plan(survey(bucket, story.keys), policy, now=now, **more)


def test_a_reader_that_lives_or_may_live_is_waited_for(
    bucket: Watched, story: Story, performer: BlockingPerformer
) -> None:
    finished(story, "one")
    keys = generation(story)
    bucket.put(story.keys.heartbeat(ME.id), b"1")
    assert performer.take(prune_steps.pin_for_reader(keys, Pin(nonce="r1", reader=ME))) is True
    for known, fate, use in (
        (True, RemovalResult.USED, GenerationUse.READER),
        (None, RemovalResult.DOUBT, GenerationUse.DOUBT),
    ):
        performer.known_to_live[ME.id] = known  # type: ignore[attr-defined]
        removal = bury(story, performer)
        assert (removal.result, removal.use) == (fate, use)
    performer.known_to_live[ME.id] = False  # type: ignore[attr-defined]
    assert bury(story, performer).result is RemovalResult.GONE


def test_a_reader_that_died_elsewhere_is_waited_for_once_and_then_holds_nothing(
    bucket: Watched, story: Story, performer: BlockingPerformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(story, "one")
    bucket.put(story.keys.heartbeat(ME.id), b"1")
    performer.take(prune_steps.pin_for_reader(generation(story), Pin(nonce="r1", reader=ME)))
    plan = planned(bucket, story, performer, PrunePolicy(keep=0), now=time.time())
    assert [each.run for each in plan.generations] == ["one"]
    monkeypatch.setattr(prune_plan, "DOUBT_PAUSE_S", 0.05)
    monkeypatch.setattr(liveness, "SILENCE_S", 0.2)
    said: list[str] = []
    done = housekeeper(bucket, story, performer).prune(plan, say=said.append)
    assert (done.generations, done.used) == (1, 0)
    assert "waiting" in said[0]


def test_a_reader_that_comes_after_the_tomb_is_refused_and_leaves_no_pin(
    bucket: Watched, story: Story, performer: BlockingPerformer
) -> None:
    finished(story, "one")
    bucket.create(generation(story).tomb, pack(TOMB))
    assert performer.take(prune_steps.pin_for_reader(generation(story), Pin(nonce="r1", reader=ME))) is False
    assert generation(story).pin("r1") not in bucket.objects


def test_runs_go_on_in_one_new_generation_that_says_why(
    bucket: Watched, story: Story, performer: BlockingPerformer
) -> None:
    finished(story, "one")
    assert bury(story, performer).result is RemovalResult.GONE
    jobs = [
        Job(run=story.run(name, TRAIN), spec=TRAIN, fingerprint=story.fingerprint(TRAIN), project=story.keys)
        for name in ("two", "three")
    ]
    stands = read_only(generations.current_state(jobs[0]), bucket)
    assert (stands.result, stands.closed) == (0, 1)
    assert [performer.take(generations.first_generation(job)).generation for job in jobs] == [2, 2]
    why = unpack(Why, "why", bucket.objects[generation(story, 2).why])
    assert (why.reason, why.shared) == ("its result was pruned", True)
    finished(story, "four", generation=2)
    assert performer.take(generations.first_generation(jobs[0])).generation == 2


def test_what_two_coordinators_of_a_run_saw_on_both_sides_of_a_tomb_is_settled_by_the_first_record(
    bucket: Watched, story: Story, performer: BlockingPerformer
) -> None:
    finished(story, "one")
    record = story.run("two", TRAIN)
    job = Job(run=record, spec=TRAIN, fingerprint=story.fingerprint(TRAIN), project=story.keys)
    bucket.create(generation(story).pin(record.id), pack(Pin(nonce="mine")))
    bucket.create(generation(story).tomb, pack(TOMB))
    in_ = Want(nonce="other", run=record.id, workflow=TRAIN.workflow, ended=0)
    for told, left in ((None, True), (in_, False)):
        if told is not None:
            bucket.put(generation(story).want(record.id), pack(told))
        assert performer.take(generations.record_want(job, generation(story))).left is left
    # The pin was there before the tomb and the run has not ended: whoever prunes leaves it all.
    assert bury(story, performer).result is RemovalResult.USED
    bucket.put(generation(story).want(record.id), pack(replace(in_, left=True)))
    assert performer.take(generations.next_generation(job, generation(story))).generation == 2


def test_the_records_of_a_run_go_name_first_summary_last(
    bucket: Watched, story: Story, performer: BlockingPerformer
) -> None:
    record = finished(story, "one")
    open_ = story.run("two", TRAIN)
    assert performer.take(prune_steps.forget_run(story.keys, open_.id)) == 0
    assert performer.take(prune_steps.forget_run(story.keys, record.id)) == 4
    run = story.keys.run(record.id)
    assert bucket.gone == [story.keys.name(record.name), run.record, run.job(TRAIN.workflow), run.final]
    assert story.keys.run(open_.id).record in bucket.objects


def test_a_name_that_another_run_took_stays(bucket: Watched, story: Story, performer: BlockingPerformer) -> None:
    record = finished(story, "one")
    bucket.objects[story.keys.name(record.name)] = b'{"run":"0000000000001-aaaaaaaaaa"}'
    performer.take(prune_steps.forget_run(story.keys, record.id))
    assert story.keys.name(record.name) in bucket.objects


def test_a_policy_by_age_takes_results_runs_code_and_signs_of_life(
    bucket: Watched, story: Story, performer: BlockingPerformer
) -> None:
    old = finished(story, "old")
    young = finished(story, "young", spec("other", script="x"))
    for key in (story.keys.diff("c" * 40), story.keys.diff("d" * 40), story.keys.heartbeat("dead")):
        bucket.put(key, b"{}")
    now = time.time()
    for key in bucket.objects:
        if str(young.id) not in key and story.fingerprint(spec("other", script="x")) not in key:
            bucket.times[key] = now - 40 * DAY
    plan = planned(bucket, story, performer, PrunePolicy(older_than=30 * DAY), now=now)
    assert [(each.workflow, each.run, each.result) for each in plan.generations] == [("train", "old", True)]
    assert [run.id for run in plan.runs] == [old.id]
    # The snapshot of all runs here is ccc…: the young one still refers to it.
    assert plan.code == (story.keys.diff("d" * 40),)
    assert plan.heartbeats == (story.keys.heartbeat("dead"),)
    done = housekeeper(bucket, story, performer).prune(plan, say=print)
    assert (done.generations, done.runs, done.used, done.objects) == (1, 1, 0, plan.objects)
    assert not [key for key in bucket.objects if str(old.id) in key]
    assert planned(bucket, story, performer, PrunePolicy(older_than=30 * DAY), now=now).objects == 0


def test_who_only_read_leaves_an_old_result_as_old_as_it_was(
    bucket: Watched, story: Story, performer: BlockingPerformer
) -> None:
    finished(story, "old")
    now = time.time()
    for key in bucket.objects:
        bucket.times[key] = now - 40 * DAY
    assert performer.take(prune_steps.pin_for_reader(generation(story), Pin(nonce="r1", reader=ME))) is True
    assert not planned(bucket, story, performer, PrunePolicy(older_than=30 * DAY), now=now).generations
    performer.take(prune_steps.unpin_reader(generation(story), Nonce("r1")))
    assert generation(story).user(1) in bucket.objects
    assert planned(bucket, story, performer, PrunePolicy(older_than=30 * DAY), now=now).generations


def test_what_a_run_without_pins_has_taken_stays(bucket: Watched, story: Story, performer: BlockingPerformer) -> None:
    """As versions that did not pin left it."""
    done = finished(story, "one")
    live = story.run("two", TRAIN, spec("more"))
    story.put(
        story.keys.run(live.id).job(TRAIN.workflow),
        bucket.objects[story.keys.run(done.id).job(TRAIN.workflow)],
    )
    plan = planned(bucket, story, performer, PrunePolicy(keep=0), now=time.time())
    assert (plan.generations, plan.held) == ((), 1)


def test_what_a_tag_names_stays(bucket: Watched, story: Story, performer: BlockingPerformer) -> None:
    finished(story, "one")
    now = time.time() + UNREFERENCED_GRACE_S
    tagged = frozenset({generation(story).folder})
    assert planned(bucket, story, performer, PrunePolicy(untagged=True), now=now).generations
    assert not planned(bucket, story, performer, PrunePolicy(untagged=True), now=now, tagged=tagged).generations


def test_a_record_of_a_live_run_that_cannot_be_read_keeps_all_code(
    bucket: Watched, story: Story, performer: BlockingPerformer
) -> None:
    record = finished(story, "one")
    bucket.put(story.keys.diff("d" * 40), b"x")
    bucket.times[story.keys.diff("d" * 40)] = 0.0
    assert planned(bucket, story, performer, PrunePolicy(), now=time.time()).code
    bucket.objects[story.keys.run(record.id).record] = b"{"
    assert not planned(bucket, story, performer, PrunePolicy(), now=time.time()).code


def played(
    steps: Steps[fx.Performer, Any], bucket: Watched, *, after: Callable[[Effect[Any, Any]], None] = lambda effect: None
) -> tuple[Any, list[str]]:
    """The steps to their end: on the bucket, and on a host that gives a slot and says nothing more -> what they come
    to, and what they asked for. `after` is called when an effect has been performed."""
    asked: list[str] = []
    answer: Any = None
    while True:
        try:
            effect = steps.send(answer)
        except StopIteration as end:
            return end.value, asked
        asked.append(type(effect).__name__)
        match effect:
            case fx.NewNonce():
                answer = Nonce("n")
            case fx.HoldSlot():
                answer = SlotHeld(host="h", boot_id="b", address={})
            case fx.PutNew(key, body):
                answer = bucket.create(key, body)
            case fx.Read(key):
                answer = bucket.get(key)
            case fx.ListKeys(prefix):
                answer = bucket.list(prefix)
            case fx.HowSilent():
                answer = Silence(seconds=0.0, since="12:00")
            case fx.StopJob():
                answer = ExitReport(code=None, stopped=True)
            case fx.WatchJob():
                answer = JobRunning()
            case fx.Collect():
                answer = NotCollected()
            case fx.Linger():
                asked += played(effect.steps, bucket, after=after)[1]
                answer = None
            case _:
                answer = None
        after(effect)


def test_a_slow_coordinator_of_a_pruned_run_starts_nothing(story: Story, bucket: Watched) -> None:
    record = story.run("one", TRAIN)
    job = Job(run=record, spec=TRAIN, fingerprint=story.fingerprint(TRAIN), project=story.keys)
    bucket.delete(story.keys.run(record.id).record)
    outcome, asked = played(attempts.make_attempt(job, ME, generation(story), 1), bucket)
    assert "StartJob" not in asked
    assert "Prepare" not in asked
    assert (outcome.status, outcome.reason) == ("stopped", "the records of its run were pruned")


def test_the_end_of_an_attempt_may_be_pruned_as_soon_as_it_was_seen(story: Story, bucket: Watched) -> None:
    """Whoever watches the attempt meanwhile lets it go as that end said, and falls over nothing."""
    record = story.run("one", TRAIN)
    job = Job(run=record, spec=TRAIN, fingerprint=story.fingerprint(TRAIN), project=story.keys)
    mine = story.attempt(record, TRAIN)
    claim = unpack(Claim, mine.claim, bucket.get(mine.claim) or b"")
    story.put(mine.end, pack(End(nonce=claim.nonce, status="lost", reason="dstack lost")))
    story.put(mine.generation.result, b"another attempt won")

    def prune(effect: Effect[Any, Any]) -> None:
        if isinstance(effect, fx.Read):
            bucket.delete(effect.key)

    _, asked = played(attempts.look_after(job, mine, claim), bucket, after=prune)
    assert asked[-1] == "Release"
    assert "StopJob" in asked
