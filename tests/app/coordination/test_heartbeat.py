"""The heartbeat: it stands before the first claim, goes with the last run, and says by its absence who has left."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass

import pytest

from dstack.adapters.unwatched_screen import LogScreen
from dstack.app.coordination import heartbeat
from dstack.app.coordination.context import CoordinationContext
from dstack.app.coordination.effect_driver import Driver
from dstack.app.coordination.heartbeat import HeartbeatWriter
from dstack.app.effects.answers import Liveness
from dstack.app.effects.catalogue import PutNew
from dstack.app.hosts.fleet import Fleet
from dstack.app.protocol.liveness import Observer
from dstack.core.format.keys import ProjectKeys
from dstack.core.format.records import Coordinator
from dstack.errors import BucketError
from dstack.ports import CodeSource
from tests.support.buckets.memory import MemoryBucket
from tests.support.simulator.world import run_of

KEYS = ProjectKeys.of("p")
ME = Coordinator(id="me", user="u", machine="elsewhere", boot_id="other", pid=1, lock="/x/me.lock")
HEARTBEAT = KEYS.heartbeat(ME.id)


class Flaky(MemoryBucket):
    """Refuses as many writes of heartbeats as it is told."""

    refusals = 0

    def put(self, key: str, body: bytes) -> None:
        if self.refusals:
            self.refusals -= 1
            raise BucketError("the store is away")
        super().put(key, body)


def observer(bucket: MemoryBucket) -> Observer:
    return Observer(bucket, KEYS, sure=lambda other: None, boottime=lambda: 0.0)


def means(bucket: MemoryBucket, code: CodeSource, beating: HeartbeatWriter) -> CoordinationContext:
    return CoordinationContext(
        bucket=bucket,
        project="p",
        keys=KEYS,
        fleet=Fleet((), None),  # type: ignore[arg-type]
        code=code,
        screen=LogScreen(),
        observer=observer(bucket),
        caller={},
        new_nonce=lambda: "n",
        heart=beating,
    )


@dataclass(frozen=True)
class Hosts:
    """What a coordinator finds at the hosts of attempts."""

    silent: dict[str, float]
    seen: dict[str, str]

    def unreachable(self) -> dict[str, float]:
        return self.silent

    def sightings(self) -> dict[str, str]:
        return self.seen


def test_it_stands_before_the_first_claim_and_goes_with_the_last_run() -> None:
    bucket = Flaky()
    beating = HeartbeatWriter(bucket, HEARTBEAT, print)

    async def scene() -> None:
        driver = Driver(means(bucket, None, beating), run_of(1, ("a",)))  # type: ignore[arg-type]
        async with beating:
            await driver.put_new(PutNew("projects/p/runs/r/jobs/a", b"no claim"))
            assert bucket.get(HEARTBEAT) is None, "whatever claims nothing needs none"
            async with beating:
                await driver.put_new(PutNew("projects/p/jobs/f/000001/claim/000001", b"mine"))
                assert bucket.get(HEARTBEAT) is not None
            assert bucket.get(HEARTBEAT) is not None, "another run of this coordinator still goes on"
        assert bucket.get(HEARTBEAT) is None

    asyncio.run(scene())


def test_a_claim_waits_for_a_bucket_that_takes_no_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "FIRST_BEAT_RETRY_S", 0.01)
    bucket, said = Flaky(), list[str]()
    bucket.refusals = 3
    beating = HeartbeatWriter(bucket, HEARTBEAT, said.append)

    async def scene() -> None:
        async with beating:
            await asyncio.gather(*(beating.begin() for _ in range(5)))
            assert bucket.get(HEARTBEAT) is not None

    asyncio.run(scene())
    assert said == ["the store is away"] * 3


def test_whoever_has_no_heartbeat_has_left_and_one_that_stands_is_not_judged_at_once() -> None:
    bucket = Flaky()
    watching = observer(bucket)
    assert watching.alive(ME) is Liveness.DEAD
    bucket.put(HEARTBEAT, b"1")
    assert watching.alive(ME) is Liveness.UNKNOWN
    bucket.delete(HEARTBEAT)
    assert watching.alive(ME) is Liveness.DEAD


def test_a_beat_says_how_long_its_credentials_last() -> None:
    bucket, ends = Flaky(), [1_900_000_000.5]
    plain, lent = (
        HeartbeatWriter(bucket, HEARTBEAT, print),
        HeartbeatWriter(bucket, HEARTBEAT + "2", print, until=lambda: ends[0]),
    )

    async def scene() -> None:
        async with plain, lent:
            await plain.begin()
            await lent.begin()
            assert "until" not in json.loads(bucket.get(HEARTBEAT) or b"")
            assert json.loads(bucket.get(HEARTBEAT + "2") or b"")["until"] == 1_900_000_000

    asyncio.run(scene())


def test_a_beat_says_which_hosts_stand_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_INTERVAL_S", 0.01)
    bucket = Flaky()
    beating = HeartbeatWriter(bucket, HEARTBEAT, print)

    async def scene() -> None:
        async with beating, asyncio.timeout(10):
            await beating.begin()
            assert "standby" not in json.loads(bucket.get(HEARTBEAT) or b"")
            beating.report_standby(["gpu-2"])
            beating.report_standby(["gpu-1", "gpu-2"])
            while json.loads(bucket.get(HEARTBEAT) or b"").get("standby") != ["gpu-1", "gpu-2"]:
                await asyncio.sleep(0.005)

    asyncio.run(scene())


def test_a_beat_says_which_attempts_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_INTERVAL_S", 0.01)
    bucket = Flaky()
    beating = HeartbeatWriter(bucket, HEARTBEAT, print)
    silent, other = {"n1": 1_900_000_000.5}, {"n2": 1_900_000_001.0}

    async def said(wanted: dict[str, int] | None) -> None:
        async with asyncio.timeout(10):
            while json.loads(bucket.get(HEARTBEAT) or b"{}").get("unreachable") != wanted:
                await asyncio.sleep(0.005)

    async def scene() -> None:
        one, two = Hosts(silent, {}), Hosts(other, {"n3": "unseen"})
        async with beating:
            beating.report_hosts(one)
            beating.report_hosts(two)
            await beating.begin()
            await said({"n1": 1_900_000_000, "n2": 1_900_000_001})
            assert json.loads(bucket.get(HEARTBEAT) or b"{}")["sightings"] == {"n3": "unseen"}
            beating.withdraw_hosts(two)
            await said({"n1": 1_900_000_000})
            assert "sightings" not in json.loads(bucket.get(HEARTBEAT) or b"{}")
            silent.clear()
            await said(None)

    asyncio.run(scene())


class SlowBeats(MemoryBucket):
    """Keeps every write of a heartbeat but the first until `open` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.under_way = threading.Event()
        self.open = threading.Event()
        self.deleted = threading.Event()

    def put(self, key: str, body: bytes) -> None:
        self.writes += 1
        if self.writes > 1:
            self.under_way.set()
            assert self.open.wait(10)
        super().put(key, body)

    def delete(self, key: str) -> None:
        super().delete(key)
        self.deleted.set()


def test_a_beat_on_its_way_when_the_last_run_ends_leaves_no_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_INTERVAL_S", 0.01)
    bucket = SlowBeats()
    beating = HeartbeatWriter(bucket, HEARTBEAT, print)

    async def scene() -> None:
        async with asyncio.timeout(10):
            await beating.__aenter__()
            await beating.begin()
            await asyncio.to_thread(bucket.under_way.wait, 10)
            leaving = asyncio.create_task(beating.__aexit__())
            # A delete that does not wait for the write comes at once.
            await asyncio.to_thread(bucket.deleted.wait, 0.3)
            bucket.open.set()
            await leaving

    asyncio.run(scene())  # waits for the threads too
    assert bucket.writes == 2
    assert bucket.get(HEARTBEAT) is None
