"""A stop beside an owner that lives and does nothing, and beside a kernel that ends nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dstack.app.effects import catalogue as fx
from dstack.app.effects.answers import HostUnreachable, JobRunning, JobStarted, JobUnkillable, Liveness, Silence
from dstack.app.effects.steps import Effect
from dstack.app.protocol import attempts, settlement
from dstack.app.protocol.jobs import Job
from dstack.core.format.records import Claim, Coordinator, unpack
from dstack.model import ExitReport, JobStatus
from tests.support.buckets.memory import MemoryBucket
from tests.support.records.specs import spec
from tests.support.records.story import Story

TRAIN = spec("train")
OTHER = Coordinator(id="c2", user="alice", machine="laptop", boot_id="b", pid=2, lock="/nowhere")


def play(
    bucket: MemoryBucket, steps: Iterator[Any], *, stop: Any, limit: float
) -> tuple[list[Effect[Any, Any]], float]:
    """The effects beyond the bucket's, until the job was told to stop or `limit` seconds have passed; and those."""
    asked: list[Effect[Any, Any]] = []
    answer: Any = None
    now = 0.0
    while now < limit:
        effect = steps.send(answer)  # type: ignore[attr-defined]
        answer = None
        match effect:
            case fx.Read(key):
                answer = bucket.get(key)
            case fx.Children(prefix):
                answer = bucket.children(prefix)
            case fx.ListKeys(prefix):
                answer = list(bucket.list(prefix))
            case fx.PutNew(key, body):
                answer = bucket.create(key, body)
            case fx.NewNonce():
                answer = "nonce"
            case fx.Alive():
                answer = Liveness.ALIVE
            case fx.AskVerdict():
                answer = JobStarted()
            case fx.HowSilent():
                answer = Silence(seconds=0.0, since="12:00")
            case fx.Pause(seconds):
                now += seconds
            case fx.WatchJob(patience=patience):
                now += patience
                answer = JobRunning()
            case fx.StopJob():
                asked.append(effect)
                answer = stop
                if isinstance(stop, ExitReport):
                    break
        if isinstance(effect, fx.Show):
            asked.append(effect)
    return asked, now


def told_to_stop() -> tuple[MemoryBucket, Story, Job, Claim]:
    bucket = MemoryBucket()
    story = Story(bucket)
    record = story.run("one", TRAIN)
    job = Job(run=record, spec=TRAIN, fingerprint=story.fingerprint(TRAIN), project=story.keys)
    mine = story.attempt(record, TRAIN)
    story.stop(record)
    return bucket, story, job, unpack(Claim, mine.claim, bucket.get(mine.claim) or b"")


def test_an_owner_that_lives_and_does_not_stop_is_not_waited_for() -> None:
    bucket, _, job, _ = told_to_stop()
    asked, now = play(
        bucket, settlement.settle(job, OTHER), stop=ExitReport(code=None, signal=15, stopped=True), limit=60
    )
    assert isinstance(asked[-1], fx.StopJob)
    assert settlement.STOP_GRACE_S <= now < settlement.STOP_GRACE_S + 4


def test_the_owner_is_given_its_time_first() -> None:
    bucket, _, job, _ = told_to_stop()
    asked, _ = play(bucket, settlement.settle(job, OTHER), stop=HostUnreachable(), limit=settlement.STOP_GRACE_S - 1)
    assert not [effect for effect in asked if isinstance(effect, fx.StopJob)]


def test_what_the_kernel_does_not_end_is_shown_as_stopping_with_its_name() -> None:
    bucket, story, job, claim = told_to_stop()
    mine = story.keys.job(job.fingerprint, 1).attempt(1)
    said = "gpu-1: the kernel does not end: 7 (dd, state D)"
    asked, _ = play(bucket, attempts.look_after(job, mine, claim), stop=JobUnkillable(said), limit=30)
    shown = [(effect.status, effect.note) for effect in asked if isinstance(effect, fx.Show)]
    assert shown[-1] == (JobStatus.STOPPING, said)
    assert bucket.get(mine.end) is None
