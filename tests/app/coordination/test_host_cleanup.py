"""What is told to be forgotten on a host that still has attempts, and what never is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from dstack.app.coordination import host_cleanup
from dstack.app.coordination.host_cleanup import clean_up_host
from dstack.core.format.keys import AttemptKeys, ProjectKeys
from dstack.core.format.records import End, Gone, Result, pack, unpack
from dstack.errors import BucketError, HostError, HostUnreachableError
from dstack.model import Fingerprint, Nonce, RunId, RunName, Spooled
from tests.support.buckets.memory import MemoryBucket
from tests.support.runners.reached import reached

KEYS = ProjectKeys.of("p")
NONCE = Nonce("a" * 32)
FINGERPRINT = "f" * 64
RESULT = Result(nonce="b" * 32, attempt=2, manifest="m" * 64, digest="d", run=RunId("r"), name=RunName("r-1"), host="h")


class Spooling:
    """A host with a spool; after its first look `released_by_owner` is gone."""

    def __init__(self, *spool: Spooled, released_by_owner: Sequence[str] = (), error: Exception | None = None) -> None:
        self.attempts = list(spool)
        self.gone_soon = released_by_owner
        self.error = error
        self.released: list[str] = []

    async def spool(self) -> Sequence[Spooled]:
        if self.error is not None:
            raise self.error
        found = list(self.attempts)
        self.attempts = [each for each in self.attempts if each.nonce not in self.gone_soon]
        return found

    async def release(self, nonce: Nonce) -> None:
        self.released.append(nonce)


def attempt(number: int = 1, project: ProjectKeys = KEYS) -> AttemptKeys:
    return project.job(Fingerprint(FINGERPRINT), 1).attempt(number)


def ended(keys: AttemptKeys, status: str = "succeeded", *, nonce: str = NONCE) -> MemoryBucket:
    bucket = MemoryBucket()
    bucket.put(keys.end, pack(End(nonce=nonce, status=status)))
    return bucket


def spooled(state: str = "ended", folder: str | None = None) -> Spooled:
    return Spooled(nonce=NONCE, state=state, attempt=attempt().folder if folder is None else folder)


def tidied(host: Spooling, bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(host_cleanup, "RELEASE_GRACE_S", 0.0)
    count = asyncio.run(clean_up_host(reached(host), bucket, KEYS, say=lambda _: None))
    assert count == len(host.released)
    return host.released


@pytest.mark.parametrize("state", ["ended", "vanished"])
@pytest.mark.parametrize("status", ["succeeded", "failed", "stopped", "superseded"])
def test_an_attempt_whose_end_is_recorded_is_forgotten(
    state: str, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tidied(Spooling(spooled(state)), ended(attempt(), status), monkeypatch) == [NONCE]


@pytest.mark.parametrize("state", ["unknown"])
def test_one_that_may_go_on_is_not(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tidied(Spooling(spooled(state)), ended(attempt()), monkeypatch) == []


def test_one_whose_end_nobody_recorded_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tidied(Spooling(spooled(), spooled("vanished")), ended(attempt(2)), monkeypatch) == []


def test_the_end_must_be_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tidied(Spooling(spooled()), ended(attempt(), nonce="b" * 32), monkeypatch) == []


def test_one_that_was_called_lost_may_still_come_to_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = ended(attempt(), "lost")
    assert tidied(Spooling(spooled("ended")), bucket, monkeypatch) == []
    assert tidied(Spooling(spooled("vanished")), bucket, monkeypatch) == [NONCE]
    bucket.put(attempt().generation.result, pack(RESULT))
    assert tidied(Spooling(spooled("ended")), bucket, monkeypatch) == [NONCE]
    assert unpack(Gone, attempt().gone, bucket.get(attempt().gone) or b"").nonce == NONCE


@pytest.mark.parametrize("body", [b"garbage", b'{"v": 99, "kind": "result"}'])
def test_a_result_that_cannot_be_read_is_no_reason_to_forget_a_good_one(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = ended(attempt(), "lost")
    bucket.put(attempt().generation.result, body)
    assert tidied(Spooling(spooled("ended")), bucket, monkeypatch) == []


@pytest.mark.parametrize("status", ["lost", "failed"])
def test_of_a_lost_one_alone_it_is_recorded_that_nothing_lives(status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = ended(attempt(), status)
    assert tidied(Spooling(spooled("vanished")), bucket, monkeypatch) == [NONCE]
    assert (bucket.get(attempt().gone) is not None) == (status == "lost")


def test_one_that_cannot_be_forgotten_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck(Spooling):
        async def release(self, nonce: Nonce) -> None:
            if nonce == NONCE:
                raise HostError("gpu-1", "its container cannot be removed")
            await super().release(nonce)

    bucket = ended(attempt(), "failed")
    other = Nonce("c" * 32)
    bucket.put(attempt(2).end, pack(End(nonce=other, status="failed")))
    host = Stuck(spooled(), Spooled(nonce=other, state="ended", attempt=attempt(2).folder))
    said: list[str] = []
    monkeypatch.setattr(host_cleanup, "RELEASE_GRACE_S", 0.0)
    assert asyncio.run(clean_up_host(reached(host), bucket, KEYS, say=said.append)) == 1
    assert host.released == [other]
    assert said == ["an attempt that is over could not be forgotten: gpu-1: its container cannot be removed"]


@pytest.mark.parametrize(
    "folder",
    [
        "",
        attempt(project=ProjectKeys.of("another")).folder,
        "projects/p/../p/jobs/" + FINGERPRINT + "/000001/a/000001/",
        attempt().folder + "log/",
        attempt().folder[:-1],
        "projects/p/runs/x/",
    ],
)
def test_what_the_host_says_is_read_with_care(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = ended(attempt())
    bucket.requests.clear()
    assert tidied(Spooling(spooled(folder=folder)), bucket, monkeypatch) == []
    assert not bucket.requests["get"]


def test_whoever_has_just_recorded_it_is_given_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tidied(Spooling(spooled(), released_by_owner=[NONCE]), ended(attempt()), monkeypatch) == []


@pytest.mark.parametrize("error", [HostUnreachableError("gpu-1", "gone"), HostError("gpu-1", "no")])
def test_a_host_that_gives_no_answer_is_left_as_it_is(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tidied(Spooling(spooled(), error=error), ended(attempt()), monkeypatch) == []


def test_so_is_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    class Away(MemoryBucket):
        def get(self, key: str) -> bytes | None:
            raise BucketError("away")

    assert tidied(Spooling(spooled()), Away(), monkeypatch) == []


def test_a_damaged_end_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = MemoryBucket()
    bucket.put(attempt().end, b"{")
    assert tidied(Spooling(spooled()), bucket, monkeypatch) == []


def test_one_whose_generation_was_pruned_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = MemoryBucket()
    assert tidied(Spooling(spooled()), bucket, monkeypatch) == []
    bucket.put(attempt().generation.tomb, b"{}")
    assert tidied(Spooling(spooled()), bucket, monkeypatch) == [NONCE]


def test_one_whose_generation_is_about_to_be_pruned_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = MemoryBucket()
    bucket.put(attempt().generation.tomb, b"{}")
    bucket.put(attempt().claim, b"{}")
    assert tidied(Spooling(spooled()), bucket, monkeypatch) == []
