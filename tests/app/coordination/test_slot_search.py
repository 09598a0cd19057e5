"""Why a job waits while its coordinator looks for a slot: in words, for whoever watches and for whoever asks later."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dstack.app.coordination.context import CoordinationContext
from dstack.app.coordination.effect_driver import Driver
from dstack.app.coordination.heartbeat import HeartbeatWriter
from dstack.app.effects.answers import SlotUnavailable
from dstack.app.effects.catalogue import HoldSlot, Show
from dstack.app.hosts.fleet import Fleet
from dstack.app.protocol.liveness import Observer
from dstack.core.format.keys import ProjectKeys
from dstack.core.placement import Peer
from dstack.errors import HostUnreachableError
from dstack.model import Host, HostFacts, HostName, JobStatus, Nonce, Snapshot
from tests.support.buckets.memory import MemoryBucket
from tests.support.records.screens import Seen
from tests.support.records.specs import FACTS
from tests.support.runners.answering import BARE, LARGE, WAITS, WITH_GPU, Answering
from tests.support.simulator.world import run_of

KEYS = ProjectKeys.of("p")
BEATS = KEYS.heartbeat("me")
RUN = run_of(1, ("a",))
RUN = replace(RUN, plan=replace(RUN.plan, jobs=(LARGE,)))


class Code:
    """Code that is always there."""

    def has(self, snapshot: Snapshot) -> bool:
        return True


def means(bucket: MemoryBucket, fleet: Fleet, *peers: Peer) -> CoordinationContext:
    return CoordinationContext(
        bucket=bucket,
        project="p",
        keys=KEYS,
        fleet=fleet,
        code=Code(),  # type: ignore[arg-type]
        screen=Seen(),
        observer=Observer(bucket, KEYS, sure=lambda other: None, boottime=lambda: 0.0),
        caller={},
        new_nonce=lambda: "n",
        heart=HeartbeatWriter(bucket, BEATS, print),
        peers=peers,
    )


def answers(*peers: Peer, far: bool = True, looks: int = 3) -> list[Any]:
    """What is said of a job that needs a GPU, look after look, on `near`, which has none, and `far`, which is away."""

    async def opened(host: Host) -> Any:
        if host.name == "far":
            raise HostUnreachableError("far", "no route")
        return Answering(FACTS)

    async def scene() -> list[Any]:
        names = ("near", "far") if far else ("near",)
        fleet = Fleet(tuple(Host(name=HostName(name)) for name in names), opened)
        await fleet.connect()
        await fleet.wait_for_tries(10.0)
        made = Driver(means(MemoryBucket(), fleet, *peers), RUN)
        try:
            return [await made.hold_slot(HoldSlot(Nonce("n" * 16), LARGE, 0.01)) for _ in range(looks)]
        finally:
            await made.close()
            await fleet.close()

    return asyncio.run(scene())


def peer(name: str, facts: HostFacts) -> Peer:
    return Peer(name=HostName(name), facts=facts)


def test_a_job_that_only_a_silent_host_might_run_says_so() -> None:
    assert answers() == [SlotUnavailable(WAITS)] * 3


def test_a_coordinator_on_a_host_says_which_other_host_can_run_the_job() -> None:
    said = answers(peer("near", FACTS), peer("gpu", WITH_GPU), far=False, looks=1)
    assert said == [SlotUnavailable(f"waits for gpu, which has the run too; {BARE}")]


def test_a_coordinator_on_a_host_says_that_no_host_which_has_the_run_can_run_the_job() -> None:
    said = answers(peer("near", FACTS), peer("other", FACTS), far=False, looks=1)
    assert said == [
        SlotUnavailable(f"waits for a coordinator of {RUN.user} that reaches a host which can run it; {BARE}")
    ]


def test_where_every_host_answers_and_none_fits_that_is_said() -> None:
    assert answers(far=False, looks=1) == [SlotUnavailable(f"no host can run it: {BARE}")]


def test_what_a_job_waits_for_stands_in_the_heartbeat_until_the_job_goes_on() -> None:
    async def scene() -> list[Any]:
        bucket = MemoryBucket()
        made = means(bucket, Fleet((), None))  # type: ignore[arg-type]
        driver = Driver(made, RUN)

        async def beat(act: Callable[[], Any]) -> Any:
            await act()
            async with made.heart:
                await made.heart.begin()
                return json.loads(bucket.get(BEATS) or b"").get("waits")

        def show(status: JobStatus, note: str) -> Callable[[], Any]:
            return lambda: driver.show(Show(workflow=LARGE.workflow, status=status, note=note))

        return [
            await beat(show(JobStatus.QUEUED, "waits for a slot")),
            await beat(show(JobStatus.QUEUED, WAITS)),
            await beat(show(JobStatus.PREPARING, "")),
            await beat(show(JobStatus.QUEUED, "x" * 10_000)),
            await beat(driver.close),
        ]

    plain, waiting, begun, long, over = asyncio.run(scene())
    assert waiting == {str(RUN.id): {"large": WAITS}}
    assert len(long[str(RUN.id)]["large"]) <= 300
    assert plain is begun is over is None
