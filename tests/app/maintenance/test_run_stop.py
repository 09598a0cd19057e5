"""The end of a run by the word of a person."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from dstack.app.maintenance.run_stop import (
    LostAttemptFate,
    end_lost_attempt,
    foreign_claims,
    lost_claims,
    request_stop,
)
from dstack.app.queries.runs import run_view
from dstack.core.format.keys import AttemptKeys
from dstack.core.format.records import Claim, End, Gone, RunRecord, Stop, pack, unpack
from dstack.errors import HostUnreachableError
from dstack.model import ExitReport, Nonce, Spooled, WorkflowName
from tests.support.buckets.memory import MemoryBucket
from tests.support.records.specs import spec
from tests.support.records.story import Story
from tests.support.runners.reached import reached

TRAIN = spec("train")


class Host:
    """A host whose spool has one attempt, and the fleet that reaches this host alone."""

    def __init__(self, keys: AttemptKeys, *, state: str = "running", answers: bool = True) -> None:
        self.spooled = [Spooled(nonce=Nonce("n1"), state=state, attempt=keys.folder)]
        self.answers = answers
        self.done: list[str] = []

    async def spool(self) -> list[Spooled]:
        return self.spooled

    async def stop(self, nonce: Nonce, *, abort: bool = False) -> ExitReport:
        self.done.append(f"stop {nonce} {abort}")
        return ExitReport(code=None, stopped=True)

    async def release(self, nonce: Nonce) -> None:
        self.done.append(f"release {nonce}")

    async def locate(self, claim: Claim) -> Any:
        if not self.answers:
            raise HostUnreachableError(claim.host, "no route")
        return None, reached(self)


@pytest.fixture
def story() -> Story:
    return Story(MemoryBucket())


def lost(story: Story) -> tuple[RunRecord, AttemptKeys, Claim]:
    """A run that has ended, and whose attempt was called lost."""
    record = story.run("one", TRAIN)
    keys = story.attempt(record, TRAIN)
    claim = unpack(Claim, keys.claim, story.bucket.get(keys.claim) or b"")
    story.put(keys.end, pack(End(nonce=claim.nonce, status="lost", reason="called lost by bob")))
    story.final(record, "lost", story.outcome(record, TRAIN, "lost"))
    return record, keys, claim


def ended(story: Story, host: Host, folder: str, claim: Claim) -> LostAttemptFate:
    return asyncio.run(end_lost_attempt(host, story.bucket, story.keys, folder, claim))  # type: ignore[arg-type]


def test_the_first_request_stands() -> None:
    story = Story(MemoryBucket())
    record = story.run("one", TRAIN)
    for user in ("bob", "eve"):
        request = Stop(nonce=Nonce(f"{user}1"), user=user, reason=f"stopped by {user}", abort=False)
        request_stop(story.bucket, story.keys, record, request, workflow=WorkflowName("train"))
    key = story.keys.run(record.id).stop(WorkflowName("train"))
    assert unpack(Stop, key, story.bucket.get(key) or b"").user == "bob"


def test_the_claims_of_lost_attempts_are_those_that_may_live(story: Story) -> None:
    record, keys, claim = lost(story)
    jobs = run_view(story.bucket, story.keys, record).jobs
    assert lost_claims(story.bucket, story.keys, jobs) == {keys.folder: claim}
    story.put(keys.gone, pack(Gone(nonce=claim.nonce)))
    jobs = run_view(story.bucket, story.keys, record).jobs
    assert lost_claims(story.bucket, story.keys, jobs) == {}


def test_a_lost_attempt_that_runs_is_ended_and_that_is_recorded(story: Story) -> None:
    _, keys, claim = lost(story)
    host = Host(keys)
    assert ended(story, host, keys.folder, claim) is LostAttemptFate.ENDED
    assert host.done == ["stop n1 True", "release n1"]
    assert story.bucket.get(keys.gone) is not None


def test_a_lost_attempt_that_does_not_run_is_recorded_as_gone(story: Story) -> None:
    _, keys, claim = lost(story)
    host = Host(keys, state="ended")
    assert ended(story, host, keys.folder, claim) is LostAttemptFate.GONE
    assert host.done == []
    assert unpack(Gone, keys.gone, story.bucket.get(keys.gone) or b"").nonce == claim.nonce


def test_a_lost_attempt_of_another_account_is_left_alone(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    _, keys, claim = lost(story)
    monkeypatch.setattr("dstack.app.maintenance.run_stop.belongs", lambda claim, facts: False)
    host = Host(keys)
    assert ended(story, host, keys.folder, claim) is LostAttemptFate.FOREIGN
    assert host.done == []
    assert story.bucket.get(keys.gone) is None


@pytest.mark.parametrize(
    ("answers", "owned", "foreign"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_a_claim_is_foreign_where_its_host_answers_under_another_account(
    story: Story, monkeypatch: pytest.MonkeyPatch, answers: bool, owned: bool, foreign: bool
) -> None:
    _, keys, claim = lost(story)
    monkeypatch.setattr("dstack.app.maintenance.run_stop.belongs", lambda claim, facts: owned)
    fleet: Any = SimpleNamespace(locate=Host(keys, answers=answers).locate)
    claims = {WorkflowName("train"): claim}
    assert asyncio.run(foreign_claims(fleet, claims)) == (claims if foreign else {})
