"""A coordinator whose heartbeat is overdue: the host where it lived is asked, and nobody waits for the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from dstack.app.coordination.context import CoordinationContext
from dstack.app.coordination.effect_driver import Driver
from dstack.app.coordination.heartbeat import HeartbeatWriter
from dstack.app.effects.answers import Liveness
from dstack.app.effects.catalogue import Alive
from dstack.app.hosts.fleet import Fleet, address_of
from dstack.app.protocol.lease import OVERDUE_S
from dstack.app.protocol.liveness import Observer
from dstack.core.format.keys import ProjectKeys
from dstack.core.format.records import Claim, Coordinator
from dstack.errors import HostError, HostUnreachableError
from dstack.model import Host, HostName, RunId, RunName
from tests.support.buckets.memory import MemoryBucket
from tests.support.simulator.world import run_of

KEYS = ProjectKeys("p")
HOST = Host(name=HostName("gpu-1"))
OWNER = Coordinator(id="owner", user="alice", machine="gpu-1", boot_id="b", pid=1, lock="/x")
CLAIM = Claim(
    nonce="n", run=RunId("r"), run_name=RunName("r-1"), host="gpu-1", address=address_of(HOST), boot_id="b",
    coordinator=OWNER,
)  # fmt: skip


class Far:
    """A host, and what its runner says when it is asked for ended coordinators."""

    def __init__(self, *ended: str, boot_id: str = "b", error: Exception | None = None) -> None:
        self.ended = ended
        self.boot_id = boot_id
        self.error = error
        self.opened = 0
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def open(self, host: Host) -> Any:
        self.opened += 1
        return self

    async def facts(self) -> Any:
        return SimpleNamespace(boot_id=self.boot_id)

    async def ended_coordinators(self, ids: Sequence[str]) -> Sequence[str]:
        self.asked += 1
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return [each for each in ids if each in self.ended]

    async def close(self) -> None: ...


class Watcher:
    """A coordinator that looks at OWNER's heartbeat, with a clock of the test's."""

    def __init__(self, far: Far) -> None:
        self.now = 0.0
        self.bucket = MemoryBucket()
        self.bucket.put(KEYS.heartbeat(OWNER.id), b"1")
        means = CoordinationContext(
            bucket=self.bucket,
            project="p",
            keys=KEYS,
            fleet=Fleet((HOST,), far.open),
            code=None,  # type: ignore[arg-type]
            screen=None,  # type: ignore[arg-type]
            observer=Observer(self.bucket, KEYS, sure=lambda other: None, boottime=lambda: self.now),
            caller={},
            new_nonce=lambda: "n",
            heart=HeartbeatWriter(self.bucket, "beats", print),
        )
        self.driver = Driver(means, run_of(1, ("a",)))
        self.fleet = means.fleet

    async def alive(self, claim: Claim | None = CLAIM) -> Liveness:
        return await asyncio.wait_for(self.driver.alive(Alive(OWNER, claim)), 5)

    async def settled(self) -> Liveness:
        """What it knows when the host has answered, or will not."""
        found = await self.alive()
        for _ in range(20):
            await asyncio.sleep(0)
        return await self.alive() if found is Liveness.UNKNOWN else found


def scene(far: Far, play: Any) -> None:
    async def whole() -> None:
        watcher = Watcher(far)
        try:
            await play(watcher)
        finally:
            await watcher.driver.close()
            await watcher.fleet.close()

    asyncio.run(whole())


def test_a_heartbeat_that_is_overdue_and_an_ended_coordinator_are_an_end_long_before_the_silence_is() -> None:
    async def play(watcher: Watcher) -> None:
        assert await watcher.alive() is Liveness.UNKNOWN
        watcher.now = OVERDUE_S
        assert await watcher.settled() is Liveness.DEAD

    scene(Far(OWNER.id), play)


def test_while_the_heart_beats_no_host_is_asked() -> None:
    far = Far(OWNER.id)

    async def play(watcher: Watcher) -> None:
        for beat in range(5):
            watcher.bucket.put(KEYS.heartbeat(OWNER.id), b"%d" % beat)
            assert await watcher.settled() is Liveness.UNKNOWN
            watcher.now += OVERDUE_S - 1
            assert await watcher.settled() is Liveness.UNKNOWN

    scene(far, play)
    assert far.opened == 0


@pytest.mark.parametrize(
    "far",
    [
        Far(),
        Far(OWNER.id, boot_id="another"),
        Far(OWNER.id, error=HostUnreachableError("gpu-1", "gone")),
        Far(OWNER.id, error=HostError("gpu-1", "no")),
    ],
    ids=["it lives", "another boot", "lost", "refused"],
)
def test_nothing_else_is_an_end(far: Far) -> None:
    async def play(watcher: Watcher) -> None:
        await watcher.alive()
        watcher.now = OVERDUE_S
        for _ in range(4):
            assert await watcher.settled() is Liveness.UNKNOWN

    scene(far, play)


def test_a_host_that_does_not_answer_holds_nobody_up() -> None:
    far = Far(OWNER.id)

    async def play(watcher: Watcher) -> None:
        far.answers.clear()
        await watcher.alive()
        watcher.now = OVERDUE_S
        for _ in range(10):
            assert await watcher.settled() is Liveness.UNKNOWN
        assert far.asked == 1
        far.answers.set()
        assert await watcher.settled() is Liveness.DEAD

    scene(far, play)


def test_of_an_attempt_that_is_not_known_no_host_is_asked() -> None:
    far = Far(OWNER.id)

    async def play(watcher: Watcher) -> None:
        await watcher.alive(None)
        watcher.now = OVERDUE_S
        assert await watcher.alive(None) is Liveness.UNKNOWN

    scene(far, play)
    assert far.opened == 0
