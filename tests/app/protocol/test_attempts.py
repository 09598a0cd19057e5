"""How often a coordinator looks at what it looks after."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from dstack.app.effects import catalogue as fx
from dstack.app.effects.answers import (
    JobRunning,
    NotBegun,
    Prepared,
    Silence,
    SlotHeld,
    SlotUnavailable,
    StartRefused,
    StartUnknown,
    Unpreparable,
)
from dstack.app.effects.steps import Effect
from dstack.app.protocol import attempts
from dstack.app.protocol.jobs import Job
from dstack.app.protocol.lease import SILENCE_S
from dstack.core.format.keys import AttemptKeys, JobKeys
from dstack.core.format.records import Claim, End, unpack
from dstack.errors import BucketError
from dstack.model import Nonce, Retry
from tests.support.buckets.memory import MemoryBucket
from tests.support.records.specs import spec
from tests.support.records.story import ME, Story
from tests.support.simulator.fed_steps import feed

TRAIN = spec("train")
HOUR = 3600.0


def test_a_job_of_hours_is_looked_at_less_often_but_soon_enough_for_a_stop() -> None:
    bucket = MemoryBucket()
    story = Story(bucket)
    record = story.run("one", TRAIN)
    job = Job(run=record, spec=TRAIN, fingerprint=story.fingerprint(TRAIN), project=story.keys)
    mine = story.attempt(record, TRAIN)
    claim = unpack(Claim, mine.claim, bucket.get(mine.claim) or b"")
    steps = attempts.look_after(job, mine, claim)
    now, looks, reads = 0.0, [], 0
    answer: Any = None
    while now < HOUR:
        effect = steps.send(answer)
        answer = None
        match effect:
            case fx.WatchJob(patience=patience):
                looks.append(patience)
                now += patience
                answer = JobRunning()
            case fx.HowSilent():
                answer = Silence(seconds=0.0, since="12:00")
            case fx.PutNew(key, body):
                answer = bucket.create(key, body)
            case fx.Read(key):
                reads += 1
                answer = bucket.get(key)
    assert looks[0] == 1.0  # of a short job every second counts
    assert max(looks) <= 3.0
    assert reads < HOUR * 1.1
    steps.close()


def taken(job: Job, mine: AttemptKeys, bucket: MemoryBucket, *, silent: float = 0.0) -> list[str]:
    """The names of the effects of looking after an attempt whose host gives no sign, to the end of the steps."""
    claim = unpack(Claim, mine.claim, bucket.get(mine.claim) or b"")
    steps = attempts.look_after(job, mine, claim)
    asked: list[str] = []
    answer: Any = None
    for _ in range(30):
        try:
            effect = steps.send(answer)
        except StopIteration:
            return asked
        asked.append(type(effect).__name__)
        answer = None
        match effect:
            case fx.WatchJob():
                answer = JobRunning()
            case fx.HowSilent():
                answer = Silence(seconds=silent, since="12:00")
            case fx.PutNew(key, body):
                answer = bucket.create(key, body)
            case fx.Read(key):
                answer = bucket.get(key)
            case fx.ListKeys(prefix):
                answer = bucket.list(prefix)
    steps.close()
    return asked


@pytest.fixture
def story() -> Story:
    return Story(MemoryBucket())


def waiting_for(story: Story, retry: Retry) -> tuple[Job, AttemptKeys]:
    train = spec("train", retry=retry)
    record = story.run("one", train)
    job = Job(run=record, spec=train, fingerprint=story.fingerprint(train), project=story.keys)
    return job, story.attempt(record, train)


AGAIN = Retry(attempts=2, on=("lost",))


@pytest.mark.parametrize("retry", [Retry(), AGAIN])
def test_a_coordinator_obeys_the_word_that_its_own_attempt_is_lost(story: Story, retry: Retry) -> None:
    """Within one look, also while the host is away: the attempt is watched aside, and the next may be made."""
    job, mine = waiting_for(story, retry)
    story.end(mine, "lost")
    asked = taken(job, mine, story.bucket)  # type: ignore[arg-type]
    assert asked.count("WatchJob") == 1
    assert asked[-1] == "Linger"


@pytest.mark.parametrize(
    ("retry", "silent", "lost"), [(AGAIN, SILENCE_S, True), (AGAIN, SILENCE_S - 1, False), (Retry(), 1e6, False)]
)
def test_its_own_silent_host_is_given_up_where_retry_says_so(
    story: Story, retry: Retry, silent: float, lost: bool
) -> None:
    job, mine = waiting_for(story, retry)
    asked = taken(job, mine, story.bucket, silent=silent)  # type: ignore[arg-type]
    body = story.bucket.get(mine.end)
    assert (body is not None) is lost
    assert (asked[-1] == "Linger") is lost
    if body is not None:
        assert unpack(End, mine.end, body).reason == "gpu-1 unreachable since 12:00"


def ends_of_a_start(answers: dict[type[Effect[Any, Any]], Any]) -> tuple[str, str, list[type[Effect[Any, Any]]]]:
    """What the end of an attempt says that was claimed and did not begin, and the hosts' part of the effects."""
    bucket = MemoryBucket()
    story = Story(bucket)
    record = story.run("one", TRAIN)
    job = Job(run=record, spec=TRAIN, fingerprint=story.fingerprint(TRAIN), project=story.keys)
    mine = story.attempt(record, TRAIN)
    claim = unpack(Claim, mine.claim, bucket.get(mine.claim) or b"")
    steps = attempts._start(job, mine, claim)
    seen: list[type[Effect[Any, Any]]] = []
    answer: Any = None
    with contextlib.suppress(StopIteration):
        while True:
            effect = steps.send(answer)
            match effect:
                case fx.PutNew(key, body):
                    answer = bucket.create(key, body)
                case fx.Read(key):
                    answer = bucket.get(key)
                case _:
                    answer = answers.get(type(effect))
                    seen.append(type(effect))
    end = unpack(End, mine.end, bucket.get(mine.end) or b"")
    return end.status, end.reason, seen


def test_what_kept_an_attempt_from_its_beginning_is_the_reason_of_its_end() -> None:
    why = "gpu-1: the disk of the host is full: git read-tree: unable to write file touch"
    status, reason, seen = ends_of_a_start({fx.Prepare: NotBegun(why), fx.AskVerdict: StartRefused()})
    assert (status, reason) == ("void", why)
    assert fx.StartJob not in seen
    assert seen[-1] is fx.Release  # half a work tree on a full disk is of use to nobody


def test_a_connection_that_was_lost_between_hold_and_go_is_called_one() -> None:
    status, reason, _ = ends_of_a_start(
        {fx.Prepare: Prepared(), fx.StartJob: StartUnknown(), fx.AskVerdict: StartRefused()}
    )
    assert (status, reason) == ("void", "the connection to gpu-1 was lost before the job began")


def test_a_job_that_cannot_be_prepared_fails_of_that() -> None:
    status, reason, _ = ends_of_a_start({fx.Prepare: Unpreparable("the inputs name a path twice")})
    assert (status, reason) == ("failed", "the inputs name a path twice")


HELD = SlotHeld(
    host="gpu", boot_id="b", address={}, account="alice", folder="/home/alice/.dstack", place="here", machine="m1"
)
ASKS_THE_BUCKET = (fx.Read, fx.PutNew, fx.ListKeys, fx.Children)


def begun_with(job: Job, keys: JobKeys, bucket: MemoryBucket, *, silent_at: int) -> list[Effect[Any, Any]]:
    """The effects of an attempt, up to its start, where the bucket gives no answer to its request of that number."""
    effects: list[Effect[Any, Any]] = []
    looks = iter([SlotUnavailable("full"), HELD])

    def perform(effect: Effect[Any, Any]) -> Any:
        effects.append(effect)
        if (
            isinstance(effect, ASKS_THE_BUCKET)
            and sum(isinstance(each, ASKS_THE_BUCKET) for each in effects) == silent_at
        ):
            raise BucketError("away")
        match effect:
            case fx.NewNonce():
                return "n" * 32
            case fx.HoldSlot():
                return next(looks)
            case fx.PutNew(key, body):
                return bucket.create(key, body)
            case fx.Read(key):
                return bucket.get(key)
            case fx.Prepare():
                return Prepared()
            case fx.StartJob():
                raise Started
        return None

    with contextlib.suppress(BucketError, Started):
        feed(attempts.make_attempt(job, ME, keys, 1), perform)
    return effects


class Started(Exception):
    """The job was told to go."""


def test_whatever_the_bucket_does_not_answer_nothing_is_held_on_that_is_not_started() -> None:
    """What is held for ever under a nonce that nobody uses any more would keep the job, and all others, waiting."""
    for silent_at in range(1, 20):
        bucket = MemoryBucket()
        story = Story(bucket)
        record = story.run("one", TRAIN)
        job = Job(run=record, spec=TRAIN, fingerprint=story.fingerprint(TRAIN), project=story.keys)
        effects = begun_with(job, job.generation(1), bucket, silent_at=silent_at)
        if isinstance(effects[-1], fx.StartJob):
            break
        assert effects[-1] == fx.Drop(Nonce("n" * 32)), (silent_at, effects)
    assert silent_at > 5
