"""What is shown of a job that another coordinator looks after."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from dstack.app.coordination import heartbeat as hearts
from dstack.app.coordination.context import CoordinationContext
from dstack.app.coordination.effect_driver import Driver
from dstack.app.coordination.heartbeat import HeartbeatWriter
from dstack.app.effects.catalogue import HowSilent, Show, WatchJob
from dstack.app.hosts.fleet import Fleet, address_of
from dstack.app.protocol.liveness import Observer
from dstack.core.format.keys import ProjectKeys
from dstack.core.format.records import Claim, Coordinator, Started, pack
from dstack.errors import BucketError, HostUnreachableError
from dstack.model import Fingerprint, Host, HostName, JobStatus, RunId, RunName, WorkflowName
from tests.support.buckets.memory import MemoryBucket
from tests.support.records.screens import Seen
from tests.support.simulator.world import run_of

KEYS = ProjectKeys.of("p")
ATTEMPT = KEYS.job(Fingerprint("f" * 64), 1).attempt(1)
NAME = WorkflowName("a")
BEATS = KEYS.heartbeat("me")
LIMIT = 30.0


class Counting(MemoryBucket):
    """Counts reads of the start, and of the log, which is read behind it."""

    reads = 0
    log_reads = 0

    def get(self, key: str) -> bytes | None:
        self.reads += key == ATTEMPT.started
        self.log_reads += key == ATTEMPT.log(0)
        return super().get(key)


async def until(question: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not question():
            await asyncio.sleep(0.005)


def driver(
    bucket: MemoryBucket, screen: Seen, *, heart: HeartbeatWriter | None = None, fleet: Fleet | None = None
) -> Driver:
    means = CoordinationContext(
        bucket=bucket,
        project="p",
        keys=KEYS,
        fleet=fleet or Fleet((), None),  # type: ignore[arg-type]
        code=None,  # type: ignore[arg-type]
        screen=screen,
        observer=Observer(bucket, KEYS, sure=lambda other: None, boottime=lambda: 0.0),
        caller={},
        new_nonce=lambda: "n",
        heart=heart or HeartbeatWriter(bucket, BEATS, print),
    )
    return Driver(means, run_of(1, ("a",)))


def running(note: str, *, mine: bool = False) -> Show:
    return Show(workflow=NAME, status=JobStatus.RUNNING, host="gpu-1", note=note, attempt=ATTEMPT, mine=mine)


def test_a_job_of_others_has_run_since_its_start_and_not_since_it_was_first_shown() -> None:
    bucket, screen = Counting(), Seen()
    bucket.put(ATTEMPT.started, pack(Started(nonce="n", at=time.time() - 240)))

    async def scene() -> None:
        made = driver(bucket, screen)
        await made.show(running("bob looks after it"))
        assert screen.jobs == [("running", "gpu-1", "bob looks after it", 0.0)], "shown at once"
        await until(lambda: len(screen.jobs) == 2)
        await made.show(running("bob looks after it"))
        await made.show(running("gpu-1 unreachable"))
        await made.close()

    asyncio.run(scene())
    assert [job[:3] for job in screen.jobs] == [
        ("running", "gpu-1", "bob looks after it"),
        ("running", "gpu-1", "bob looks after it"),
        ("running", "gpu-1", "gpu-1 unreachable"),
    ]
    assert screen.jobs[1][3] == pytest.approx(240, abs=LIMIT)
    assert bucket.reads == 1


@pytest.mark.parametrize("body", [None, pack(Started(nonce="n", at=0.0)), b"damaged"])
def test_a_start_that_is_not_known_changes_nothing_and_the_log_is_shown(body: bytes | None) -> None:
    bucket, screen = Counting(), Seen()
    if body is not None:
        bucket.put(ATTEMPT.started, body)

    async def scene() -> None:
        made = driver(bucket, screen)
        await made.show(running(""))
        await until(lambda: bucket.log_reads > 0)
        await made.close()

    asyncio.run(scene())
    assert screen.jobs == [("running", "gpu-1", "", 0.0)]
    assert bucket.reads == 1


def test_the_start_of_ones_own_job_is_not_read() -> None:
    bucket, screen = Counting(), Seen()

    async def scene() -> None:
        made = driver(bucket, screen)
        await made.show(running("", mine=True))
        await made.close()

    asyncio.run(scene())
    assert bucket.reads == 0


HOST = Host(name=HostName("gpu-1"))
ME = Coordinator(id="me", user="alice", machine="laptop", boot_id="b", pid=1, lock="/x")
CLAIM = Claim(
    nonce="n", run=RunId("r"), run_name=RunName("r-1"), host="gpu-1", address=address_of(HOST), boot_id="b",
    coordinator=ME,
)  # fmt: skip


class Away(MemoryBucket):
    """Takes heartbeats, and shows no logs."""

    def list(self, prefix: str, *, limit: int | None = None) -> Sequence[str]:
        raise BucketError("the store is away")


class Far:
    """A host whose runner can be opened, or not."""

    async def facts(self) -> Any:
        return None

    async def close(self) -> None: ...


async def until_silent(made: Driver) -> None:
    async with asyncio.timeout(LIMIT):
        while (await made.how_silent(HowSilent(CLAIM))).seconds == 0.0:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(("reached", "told"), [(True, False), (False, True)], ids=["bucket away", "host away"])
def test_only_a_host_that_does_not_answer_is_called_unreachable(
    reached: bool, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only then is it silent: a bucket that is away says nothing of the host."""
    monkeypatch.setattr(hearts, "BEAT_INTERVAL_S", 0.01)
    bucket, screen = Away(), Seen()
    beating = HeartbeatWriter(bucket, BEATS, print)

    async def opened(host: Host) -> Any:
        if not reached:
            raise HostUnreachableError(host.name, "no route")
        return Far()

    async def scene() -> None:
        async with beating:
            await beating.begin()
            made = driver(bucket, screen, heart=beating, fleet=Fleet((HOST,), opened))
            await made.watch_job(WatchJob(CLAIM, NAME, ATTEMPT, 0.01))
            await until(lambda: bool(screen.jobs))
            seen = json.loads(bucket.get(BEATS) or b"")["beat"]
            await until(lambda: json.loads(bucket.get(BEATS) or b"")["beat"] > seen + 1)
            assert ("unreachable" in json.loads(bucket.get(BEATS) or b"")) is told
            if told:
                await until_silent(made)
            else:
                assert (await made.how_silent(HowSilent(CLAIM))).seconds == 0.0
            await made.close()

    asyncio.run(scene())
