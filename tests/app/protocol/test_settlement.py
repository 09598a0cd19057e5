"""One job to its outcome: what is reused, what is waited for, what is adopted, and what is called lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from dstack.app.effects import catalogue as fx
from dstack.app.effects.answers import (
    ForeignAttempt,
    HostUnreachable,
    JobStarted,
    Liveness,
    Silence,
    StartRefused,
)
from dstack.app.protocol import settlement
from dstack.app.protocol.jobs import Job
from dstack.app.protocol.lease import SILENCE_S
from dstack.app.protocol.settlement import JobDamage
from dstack.core.foreign_attempts import Sighting
from dstack.core.format.keys import AttemptKeys
from dstack.core.format.records import Coordinator, End, Outcome, unpack
from dstack.model import JobSpec, JobStatus, Retry
from tests.support.buckets.memory import MemoryBucket
from tests.support.records.finished import finished
from tests.support.records.specs import spec
from tests.support.records.story import Story
from tests.support.simulator.fed_steps import play

TRAIN = spec("train")
AGAIN = spec("train", retry=Retry(attempts=2, on=("lost",)))
OTHER = Coordinator(id="c2", user="bob", machine="m", boot_id="b2", pid=2, lock="/x")


class Enough(Exception):
    """The steps have come to where the test wanted them."""


def enough() -> Iterator[object]:
    raise Enough
    yield


class Joined:
    """A job with an attempt of another coordinator that has not ended."""

    def __init__(self, job: JobSpec = TRAIN) -> None:
        self.bucket = MemoryBucket()
        self.story = Story(self.bucket)
        self.record = self.story.run("one", job)
        self.job = Job(run=self.record, spec=job, fingerprint=self.story.fingerprint(job), project=self.story.keys)
        self.attempt: AttemptKeys = self.story.attempt(self.record, job)

    def settle(self, answers: Mapping[type[object], object]) -> None:
        """Settle as another coordinator, until the steps would pause or hold a slot for the next attempt."""
        until: dict[type[object], object] = {
            fx.Pause: enough(),
            fx.HoldSlot: enough(),
            fx.WatchJob: enough(),
            **answers,
        }
        with pytest.raises(Enough):
            play(settlement.settle(self.job, OTHER), self.bucket, until)

    @property
    def end(self) -> End | None:
        body = self.bucket.get(self.attempt.end)
        return unpack(End, self.attempt.end, body) if body is not None else None


def test_a_recorded_outcome_is_the_outcome_and_nothing_else_is_asked() -> None:
    joined = Joined()
    outcome = joined.story.outcome(joined.record, TRAIN, "failed")
    assert play(settlement.settle(joined.job, OTHER), joined.bucket) == (outcome, ["Read"])


def test_a_result_of_another_run_is_reused_by_its_name() -> None:
    bucket = MemoryBucket()
    story = Story(bucket)
    maker = finished(story, "maker", TRAIN)
    record = story.run("two", TRAIN)
    job = Job(run=record, spec=TRAIN, fingerprint=story.fingerprint(TRAIN), project=story.keys)
    outcome, asked = play(settlement.settle(job, OTHER), bucket, {fx.Sizes: {}, fx.Reaches: True})
    assert (outcome.status, outcome.reused_from, outcome.attempt) == (JobStatus.REUSED, maker.name, 1)
    assert "HoldSlot" not in asked
    assert unpack(Outcome, "outcome", bucket.objects[story.keys.run(record.id).job(TRAIN.workflow)]) == outcome


def test_a_result_with_a_hole_is_closed_and_the_job_is_made_in_the_next_generation() -> None:
    bucket = MemoryBucket()
    story = Story(bucket)
    finished(story, "maker", TRAIN)
    record = story.run("two", TRAIN)
    job = Job(run=record, spec=TRAIN, fingerprint=story.fingerprint(TRAIN), project=story.keys)
    with pytest.raises(Enough):
        play(settlement.settle(job, OTHER), bucket, {fx.Sizes: {}, fx.Reaches: False, fx.HoldSlot: enough()})
    assert bucket.get(job.generation(2).why) is not None
    assert bucket.get(job.generation(2).want(record.id)) is not None


@pytest.mark.parametrize("liveness", [Liveness.ALIVE, Liveness.UNKNOWN])
def test_an_attempt_is_left_to_an_owner_that_may_live(liveness: Liveness) -> None:
    joined = Joined()
    joined.settle({fx.Alive: liveness})
    assert joined.bucket.get(joined.attempt.owner(1)) is None


def test_a_started_attempt_of_a_dead_owner_is_adopted_before_it_is_watched() -> None:
    joined = Joined()
    joined.settle({fx.Alive: Liveness.DEAD, fx.AskVerdict: JobStarted()})
    assert joined.bucket.get(joined.attempt.owner(1)) is not None
    assert joined.end is None


def test_an_attempt_that_its_host_has_refused_is_void_and_the_next_one_is_made() -> None:
    joined = Joined()
    joined.settle({fx.Alive: Liveness.DEAD, fx.AskVerdict: StartRefused()})
    assert joined.end is not None
    assert joined.end.status == "void"


@pytest.mark.parametrize(
    ("job", "silence", "lost"),
    [
        (TRAIN, Silence(seconds=10 * SILENCE_S, since="12:00"), False),
        (AGAIN, Silence(seconds=SILENCE_S - 1, since="12:00"), False),
        (AGAIN, Silence(seconds=SILENCE_S, since="12:00"), True),
        (AGAIN, Silence(seconds=0.0, since="12:00", owner=True), True),
    ],
)
def test_a_silent_host_loses_an_attempt_only_where_retry_says_so(job: JobSpec, silence: Silence, lost: bool) -> None:
    """The silence of an owner on the very host counts as the host's own."""
    joined = Joined(job)
    joined.settle({fx.Alive: Liveness.DEAD, fx.AskVerdict: HostUnreachable(), fx.HowSilent: silence})
    assert (joined.end is not None) is lost
    if joined.end is not None:
        assert (joined.end.status, joined.end.reason) == ("lost", "gpu-1 unreachable since 12:00")


@pytest.mark.parametrize("job", [TRAIN, AGAIN])
@pytest.mark.parametrize("sighting", list(Sighting))
def test_an_attempt_of_another_account_is_lost_only_with_its_machine(job: JobSpec, sighting: Sighting) -> None:
    joined = Joined(job)
    joined.settle({fx.Alive: Liveness.DEAD, fx.AskVerdict: ForeignAttempt(sighting=sighting)})
    lost = job is AGAIN and sighting is Sighting.RESTARTED
    assert (joined.end is not None) is lost
    assert (joined.bucket.get(joined.attempt.gone) is not None) is lost


def test_the_outcome_that_another_coordinator_recorded_first_is_returned() -> None:
    joined = Joined()
    first = joined.story.outcome(joined.record, TRAIN, "succeeded")
    late = play(joined.job.outcome(JobStatus.FAILED), joined.bucket)[0]
    assert play(settlement.conclude(joined.job, late), joined.bucket)[0] == first


def test_a_job_that_can_never_be_done_fails_with_the_damaged_key() -> None:
    joined = Joined()
    damage = JobDamage(key="p/x", reason="its input is damaged")
    outcome = play(settlement.give_up(joined.job, damage), joined.bucket)[0]
    assert (outcome.status, outcome.reason, outcome.damaged) == (JobStatus.FAILED, "its input is damaged", "p/x")


def test_a_damaged_outcome_record_hides_no_outcome() -> None:
    joined = Joined()
    joined.bucket.create(joined.story.keys.run(joined.record.id).job(TRAIN.workflow), b"damaged")
    outcome = play(settlement.give_up(joined.job, JobDamage(key="k", reason="r")), joined.bucket)[0]
    assert outcome.status is JobStatus.FAILED


def test_a_job_is_skipped_with_the_name_of_the_input_that_did_not_succeed() -> None:
    joined = Joined()
    culprit = joined.story.outcome(joined.story.run("two", spec("prepare")), spec("prepare"), "failed")
    outcome = play(settlement.skip(joined.job, culprit), joined.bucket)[0]
    assert (outcome.status, outcome.reason) == (JobStatus.STOPPED, "not run: prepare failed")
