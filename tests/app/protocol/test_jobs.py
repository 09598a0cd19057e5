"""Who still wants a job, and who looks after its last attempt: by the records."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dstack.app.protocol.bucket_performer import read_only
from dstack.app.protocol.jobs import Job, ends_of, is_wanted, latest_of, stop_of, stop_of_unwanted
from dstack.core.format.keys import AttemptKeys
from dstack.core.format.records import Coordinator, Owner, RunRecord, Want, pack
from dstack.model import WorkflowName
from tests.support.buckets.memory import MemoryBucket
from tests.support.records.specs import spec
from tests.support.records.story import ME, Story

TRAIN = spec("train")
OTHER = Coordinator(id="c2", user="bob", machine="m", boot_id="b", pid=2, lock="/x")


class Shared:
    """Two runs that wait for one attempt of the first."""

    def __init__(self) -> None:
        self.bucket = MemoryBucket()
        self.story = Story(self.bucket)
        self.one, self.two = self.story.run("one", TRAIN), self.story.run("two", TRAIN)
        self.attempt: AttemptKeys = self.story.attempt(self.one, TRAIN)
        self.want(self.two)

    def want(self, record: RunRecord, *, left: bool = False) -> None:
        body = pack(Want(nonce="n", run=record.id, workflow=TRAIN.workflow, ended=0, left=left))
        self.bucket.put(self.attempt.generation.want(record.id), body)

    def job(self, record: RunRecord) -> Job:
        return Job(run=record, spec=TRAIN, fingerprint=self.story.fingerprint(TRAIN), project=self.story.keys)

    def is_ended(self, record: RunRecord) -> bool:
        """Whether a stop of the run ends the attempt."""
        return read_only(stop_of_unwanted(self.job(record), self.attempt), self.bucket) is not None


@pytest.fixture
def shared() -> Shared:
    return Shared()


def test_a_stop_ends_no_attempt_that_another_run_waits_for(shared: Shared) -> None:
    assert not shared.is_ended(shared.one), "nobody asked"
    shared.story.stop(shared.one)
    assert not shared.is_ended(shared.one)
    shared.story.stop(shared.two)
    assert shared.is_ended(shared.one)


def leave(shared: Shared) -> None:
    shared.want(shared.two, left=True)


def settle(shared: Shared) -> None:
    shared.story.outcome(shared.two, TRAIN)


def prune(shared: Shared) -> None:
    shared.bucket.delete(shared.story.keys.run(shared.two.id).record)


@pytest.mark.parametrize("change", [leave, settle, prune])
def test_a_run_waits_no_more_once_it_has_left_or_has_its_outcome_or_was_pruned(
    shared: Shared, change: Callable[[Shared], None]
) -> None:
    shared.story.stop(shared.one)
    change(shared)
    assert shared.is_ended(shared.one)


def test_a_damaged_want_counts_until_its_run_is_over(shared: Shared) -> None:
    """Nobody can say for which workflow the run waits."""
    shared.story.stop(shared.one)
    shared.bucket.put(shared.attempt.generation.want(shared.two.id), b"damaged")
    assert not shared.is_ended(shared.one)
    shared.story.final(shared.two, "failed")
    assert shared.is_ended(shared.one)


def test_the_claimant_is_asked_by_key_whoever_is_registered(shared: Shared) -> None:
    shared.story.stop(shared.two)
    assert read_only(is_wanted(shared.story.keys, shared.attempt), shared.bucket), "the claimant wants it"
    shared.story.stop(shared.one)
    assert not read_only(is_wanted(shared.story.keys, shared.attempt), shared.bucket)


@pytest.mark.parametrize("workflow", [None, "train"])
def test_a_stop_covers_the_run_or_one_workflow_of_it(shared: Shared, workflow: str | None) -> None:
    shared.story.stop(shared.one, workflow)
    keys = shared.story.keys.run(shared.one.id)
    assert read_only(stop_of(keys, TRAIN.workflow), shared.bucket) is not None
    assert (read_only(stop_of(keys, WorkflowName("other")), shared.bucket) is None) is (workflow is not None)


def test_a_damaged_stop_is_a_stop(shared: Shared) -> None:
    keys = shared.story.keys.run(shared.one.id)
    shared.bucket.create(keys.stop(None), b"damaged")
    found = read_only(stop_of(keys, TRAIN.workflow), shared.bucket)
    assert found is not None
    assert "nobody can say who" in found.reason


def test_the_owner_of_an_attempt_is_its_last_adopter_else_its_claimant(shared: Shared) -> None:
    keys = shared.attempt.generation
    number, live = read_only(latest_of(keys), shared.bucket)
    assert number == 1
    assert live is not None
    assert (live.owner, live.adoptions) == (ME, 0)
    shared.bucket.create(shared.attempt.owner(1), pack(Owner(nonce="n", coordinator=OTHER)))
    _, live = read_only(latest_of(keys), shared.bucket)
    assert live is not None
    assert (live.owner, live.adoptions) == (OTHER, 1)


def test_an_ended_attempt_is_counted_and_not_live(shared: Shared) -> None:
    keys = shared.attempt.generation
    shared.story.end(shared.attempt, "failed")
    assert read_only(latest_of(keys), shared.bucket) == (1, None)
    shared.story.attempt(shared.one, TRAIN, 2)
    assert [end.status for end in read_only(ends_of(keys, 0, 2), shared.bucket)] == ["failed"], "open ones are left out"
    assert read_only(ends_of(keys, 1, 2), shared.bucket) == ()
