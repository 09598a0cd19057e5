"""What lives on a host of an attempt that the records have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from dstack.app.coordination import host_cleanup
from dstack.app.coordination.host_cleanup import clean_up_host
from dstack.app.coordination.orphans import find_orphans, is_awaited
from dstack.app.queries.runs import run_view
from dstack.core.format.keys import AttemptKeys
from dstack.core.format.records import Claim, End, Gone, RunRecord, pack, unpack
from dstack.model import ExitReport, Nonce, Spooled
from tests.support.buckets.memory import MemoryBucket
from tests.support.records.specs import spec
from tests.support.records.story import Story
from tests.support.runners.reached import reached

TRAIN = spec("train")


class Host:
    """A host whose spool has one attempt."""

    def __init__(self, keys: AttemptKeys, nonce: str = "n1", state: str = "running") -> None:
        self.spooled = [Spooled(nonce=Nonce(nonce), state=state, attempt=keys.folder)]
        self.done: list[str] = []

    async def spool(self) -> Sequence[Spooled]:
        return self.spooled

    async def stop(self, nonce: Nonce, *, abort: bool = False) -> ExitReport:
        self.done.append(f"stop {abort}")
        return ExitReport(code=None, stopped=True)

    async def release(self, nonce: Nonce) -> None:
        self.done.append("release")


@pytest.fixture
def bucket() -> MemoryBucket:
    return MemoryBucket()


@pytest.fixture
def story(bucket: MemoryBucket) -> Story:
    return Story(bucket)


def lost(story: Story) -> tuple[RunRecord, AttemptKeys]:
    """A run that waits for a job whose first attempt was called lost."""
    record = story.run("one", TRAIN)
    keys = story.attempt(record, TRAIN)
    nonce = unpack(Claim, keys.claim, story.bucket.get(keys.claim) or b"").nonce
    story.put(keys.end, pack(End(nonce=nonce, status="lost", reason="called lost by bob")))
    return record, keys


def found(host: Host, story: Story) -> list[str]:
    return [each.text for each in asyncio.run(find_orphans(host, story.bucket, story.keys))]  # type: ignore[arg-type]


def tidied(host: Host, story: Story, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(host_cleanup, "RELEASE_GRACE_S", 0.0)
    asyncio.run(clean_up_host(reached(host), story.bucket, story.keys, say=lambda _: None))
    return host.done


def test_what_runs_on_after_its_end_is_an_orphan(story: Story) -> None:
    _, keys = lost(story)
    assert found(Host(keys), story) == ["attempt 1 of one was recorded as lost, and runs on: dstack stop one"]


@pytest.mark.parametrize(
    ("nonce", "state"), [("another", "running"), ("n1", "ended"), ("n1", "vanished"), ("n1", "unknown")]
)
def test_nothing_else_is(story: Story, nonce: str, state: str) -> None:
    _, keys = lost(story)
    assert found(Host(keys, nonce, state), story) == []


def test_an_attempt_without_an_end_is_none_and_a_damaged_end_neither(story: Story) -> None:
    record = story.run("one", TRAIN)
    keys = story.attempt(record, TRAIN)
    assert found(Host(keys), story) == []
    story.put(keys.end, b"{")
    assert found(Host(keys), story) == []


def test_while_a_run_waits_for_a_result_that_it_may_give_it_goes_on(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, keys = lost(story)
    assert is_awaited(story.bucket, story.keys, keys)
    assert tidied(Host(keys), story, monkeypatch) == []


@pytest.mark.parametrize("why", ["the run has its outcome", "the run was stopped", "another attempt has the result"])
def test_when_nothing_can_come_of_it_the_next_coordinator_ends_it(
    story: Story, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, keys = lost(story)
    if why == "the run has its outcome":
        story.outcome(record, TRAIN, "lost")
    elif why == "the run was stopped":
        story.stop(record)
    else:
        story.put(keys.generation.result, b"of another attempt")
    assert tidied(Host(keys), story, monkeypatch) == ["stop True", "release"]
    assert unpack(Gone, keys.gone, story.bucket.get(keys.gone) or b"").nonce == "n1"


def test_a_lost_attempt_is_told_until_it_is_known_to_be_gone(story: Story) -> None:
    record, keys = lost(story)
    story.final(record, "lost", story.outcome(record, TRAIN, "lost"))
    assert run_view(story.bucket, story.keys, record).jobs[0].lost == (1,)
    story.put(keys.gone, pack(Gone(nonce="n1")))
    assert run_view(story.bucket, story.keys, record).jobs[0].lost == ()


def test_so_is_one_that_a_later_attempt_followed(story: Story) -> None:
    record, _ = lost(story)
    story.attempt(record, TRAIN, 2)
    story.final(record, "succeeded", story.outcome(record, TRAIN, "succeeded", attempt=2))
    assert run_view(story.bucket, story.keys, record).jobs[0].lost == (1,)


def test_a_job_whose_only_attempt_ended_costs_no_read(story: Story, bucket: MemoryBucket) -> None:
    record = story.run("one", TRAIN)
    story.attempt(record, TRAIN)
    story.final(record, "succeeded", story.outcome(record, TRAIN))
    before = bucket.requests["get"]
    run_view(bucket, story.keys, record)
    assert bucket.requests["get"] == before + 1
