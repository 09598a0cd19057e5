"""What is written of an attempt that has ended: in which order, and with which words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dstack.app.effects import catalogue as fx
from dstack.app.effects.answers import Collected, NotCollected, Uncollectable
from dstack.app.protocol.attempt_records import bring_in, record_ended, record_lost, record_void
from dstack.core.format.keys import AttemptKeys
from dstack.core.format.records import Claim, End, Result, pack, unpack
from dstack.model import ExitReport, WorkflowName
from tests.support.buckets.memory import MemoryBucket
from tests.support.records.specs import spec
from tests.support.records.story import Story
from tests.support.simulator.fed_steps import play

TRAIN = spec("train")
GOOD = ExitReport(code=0, started=10.0, ended=20.0, log_lost="the log is cut")
BAD = ExitReport(code=1, reason="it said 1")
COLLECTED = Collected(manifest="m" * 64, digest="d" * 64)


class Ended:
    """A claimed attempt in a bucket, and the steps that record its end."""

    def __init__(self) -> None:
        self.bucket = MemoryBucket()
        story = Story(self.bucket)
        self.mine: AttemptKeys = story.attempt(story.run("one", TRAIN), TRAIN)
        self.claim = unpack(Claim, self.mine.claim, self.bucket.objects[self.mine.claim])
        self.before = len(self.bucket.order)

    def record(self, report: ExitReport, collected: Collected | Uncollectable) -> list[str]:
        return play(record_ended(self.mine, self.claim, report, collected), self.bucket)[1]

    @property
    def end(self) -> End:
        return unpack(End, self.mine.end, self.bucket.objects[self.mine.end])

    @property
    def written(self) -> list[str]:
        return self.bucket.order[self.before :]


@pytest.fixture
def ended() -> Ended:
    return Ended()


def test_the_result_stands_before_the_end_and_the_host_forgets_last(ended: Ended) -> None:
    asked = ended.record(GOOD, COLLECTED)
    assert ended.written == [ended.mine.generation.result, ended.mine.end]
    assert asked[-1] == "Release"
    assert ended.end.status == "succeeded"


def test_the_result_follows_from_claim_report_and_manifest_alone(ended: Ended) -> None:
    """So two owners of one attempt write the same bytes, and neither loses to the other."""
    ended.record(GOOD, COLLECTED)
    first = dict(ended.bucket.objects)
    ended.record(GOOD, COLLECTED)
    assert ended.bucket.objects == first
    result = unpack(Result, "result", first[ended.mine.generation.result])
    assert (result.nonce, result.manifest, result.digest) == (ended.claim.nonce, "m" * 64, "d" * 64)
    assert (result.started, result.ended, result.log_lost) == (10.0, 20.0, "the log is cut")


def test_an_attempt_that_succeeded_behind_another_result_is_superseded(ended: Ended) -> None:
    theirs = pack(Result(nonce="other", attempt=2, manifest="", digest="", run=ended.claim.run, name="x"))  # type: ignore[arg-type]
    ended.bucket.create(ended.mine.generation.result, theirs)
    ended.record(GOOD, COLLECTED)
    assert ended.end.status == "superseded"
    assert ended.bucket.objects[ended.mine.generation.result] == theirs


@pytest.mark.parametrize(
    ("report", "status"),
    [
        (BAD, "failed"),
        (replace(BAD, stopped=True), "stopped"),
        (replace(BAD, vanished=True), "lost"),
        (replace(BAD, stopped=True, vanished=True), "stopped"),
    ],
)
def test_an_attempt_that_did_not_succeed_ends_without_a_result(ended: Ended, report: ExitReport, status: str) -> None:
    ended.record(report, COLLECTED)
    assert (ended.end.status, ended.end.reason, ended.end.code) == (status, "it said 1", 1)
    assert ended.mine.generation.result not in ended.bucket.objects
    assert (ended.mine.gone in ended.bucket.objects) is report.vanished


def test_artifacts_that_cannot_be_had_fail_even_a_job_that_succeeded(ended: Ended) -> None:
    ended.record(GOOD, Uncollectable("the disk is broken"))
    assert (ended.end.status, ended.end.reason) == ("failed", "the disk is broken")
    assert ended.mine.generation.result not in ended.bucket.objects


def test_the_reason_of_a_failed_job_says_also_that_its_artifacts_are_lost(ended: Ended) -> None:
    ended.record(BAD, Uncollectable("the disk is broken"))
    assert ended.end.reason == "it said 1; what it left could not be kept: the disk is broken"


def test_a_void_attempt_and_a_lost_attempt_say_so(ended: Ended) -> None:
    play(record_void(ended.mine, ended.claim), ended.bucket)
    assert (ended.end.status, ended.end.reason) == ("void", "it never started on gpu-1")
    other = Ended()
    play(record_lost(other.mine, other.claim, "gpu-1 unreachable"), other.bucket)
    assert (other.end.status, other.end.reason) == ("lost", "gpu-1 unreachable")
    assert other.mine.gone not in other.bucket.objects, "it may live"


def test_a_late_result_that_cannot_be_collected_now_changes_nothing(ended: Ended) -> None:
    steps = bring_in(ended.mine, ended.claim, GOOD, WorkflowName("train"))
    done, asked = play(steps, ended.bucket, {fx.Collect: NotCollected()})
    assert (done, asked, ended.written) == (False, ["Collect"], [])


def test_a_late_result_is_the_result_where_there_is_none(ended: Ended) -> None:
    play(record_lost(ended.mine, ended.claim, "gpu-1 unreachable"), ended.bucket)
    steps = bring_in(ended.mine, ended.claim, GOOD, WorkflowName("train"))
    done, asked = play(steps, ended.bucket, {fx.Collect: COLLECTED})
    assert done
    assert asked[-1] == "Release"
    assert ended.mine.generation.result in ended.bucket.objects
    assert ended.mine.gone in ended.bucket.objects
    assert ended.end.status == "lost", "the end that was recorded first stays"
