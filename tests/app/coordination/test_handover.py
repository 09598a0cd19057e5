"""Leaving a run to its hosts: who can take it, what each is told of the others, and what people are told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dstack.app.coordination.handover import HandoverResult, hand_out, make_ready, still_awaited
from dstack.app.hosts.fleet import Fleet, Link, ReachedHost
from dstack.core.placement import Peer
from dstack.errors import BucketError, HostError, HostUnreachableError
from dstack.model import Host, HostFacts, HostName, JobSpec, Resources, Snapshot
from tests.support.records.specs import LARGE_FACTS, spec

SNAPSHOT = Snapshot(commit="c", tree="t", prefix="", head=None, branch=None, remote=None, dirty=False)


class Far:
    """A host with some images, which may refuse the code."""

    def __init__(self, name: str, *images: str, refuses: bool = False) -> None:
        self.name = name
        self.has = images
        self.refuses = refuses
        self.asked: list[list[str]] = []

    async def facts(self) -> HostFacts:
        return replace(LARGE_FACTS, hostname=self.name, docker=True)

    async def close(self) -> None: ...

    async def push_code(self, project: str, snapshot: Snapshot, source: Any) -> int:
        if self.refuses:
            raise HostError(self.name, "the disk is full")
        return 1

    async def images(self, names: Sequence[str]) -> Sequence[str]:
        self.asked.append(list(names))
        return [name for name in names if name in self.has]


async def handed(
    *hosts: Far, images: Sequence[str] = (), blind: str = "", until: dict[str, float] | None = None, slots: int = 3
) -> tuple[HandoverResult, dict[str, Sequence[Peer]]]:
    """What becomes of a run among these hosts, and the peers that each was told of. `blind` sees no bucket."""
    links = []
    for far in hosts:

        async def opened(host: Host, far: Far = far) -> Any:
            return far

        links.append(Link(Host(name=HostName(far.name), slots=slots, local=far.name == "here"), opened))
        await links[-1].reach()
    told: dict[str, Sequence[Peer]] = {}

    async def look(reached: ReachedHost) -> None:
        if reached.host.name == blind:
            raise BucketError("this host does not see the bucket")

    async def give(reached: ReachedHost, peers: Sequence[Peer]) -> float | None:
        told[reached.host.name] = peers
        return (until or {}).get(reached.host.name)

    ready = await make_ready(links, project="p", snapshot=SNAPSHOT, code=None, look=look, images=images)  # type: ignore[arg-type]
    return await hand_out(ready, give), told


def test_every_host_that_can_takes_it_and_knows_the_others_their_slots_and_images() -> None:
    one, two = Far("a", "torch:2", "other:1"), Far("b")
    result, told = asyncio.run(handed(one, two, images=["torch:2", "jax:1"]))
    assert result.taken == ("a", "b")
    assert [(peer.name, peer.slots, peer.images) for peer in told["a"]] == [("a", 3, ("torch:2",)), ("b", 3, ())]
    assert told["a"] == told["b"], "all come to the same order only when all are told the same"


def test_a_run_without_images_asks_for_none() -> None:
    one = Far("a", "torch:2")
    asyncio.run(handed(one))
    assert one.asked == []


def test_the_others_are_left_with_the_reason() -> None:
    result, told = asyncio.run(handed(Far("a"), Far("b", refuses=True), Far("c"), Far("here"), blind="c"))
    assert result.taken == ("a",)
    assert {each.name: each.why for each in result.left} == {
        "here": "",
        "b": "b: the disk is full",
        "c": "this host does not see the bucket",
    }
    assert [peer.name for peer in told["a"]] == ["a"], "who takes no part has no turn"


def test_it_is_known_when_lent_credentials_end() -> None:
    result, _ = asyncio.run(handed(Far("a"), Far("b"), until={"b": 12.5}))
    assert result.until == (("b", 12.5),)


class Silent:
    """A host that does not answer."""

    async def facts(self) -> HostFacts:
        raise HostUnreachableError("gone", "no route")


def kept(*jobs: JobSpec, has: HostFacts | None = None) -> dict[str, str]:
    """Which hosts this machine goes on waiting for, where `near` has 4 cores and `gone` does not answer."""

    async def scene() -> dict[str, str]:
        async def opened(host: Host) -> Any:
            return Far("near") if host.name == "near" else Silent()

        fleet = Fleet((Host(name=HostName("near")), Host(name=HostName("gone"))), opened)
        await fleet.connect()
        fleet.links["gone"].facts = has
        try:
            return {each.name: each.why for each in still_awaited(list(fleet.links.values()), jobs)}
        finally:
            await fleet.close()

    return asyncio.run(scene())


WIDE = spec("wide", resources=Resources(cpu=64))
ONLY_GONE = {"gone": "gone: cannot be reached, and no other host can run wide"}


def test_a_silent_host_that_alone_might_run_a_job_is_not_left_out() -> None:
    assert kept(spec("small")) == {}
    assert kept(spec("small"), WIDE) == ONLY_GONE


def test_a_silent_host_that_could_not_run_the_job_either_is_left_out() -> None:
    small = asyncio.run(Far("gone").facts())
    assert kept(WIDE, has=small) == {}
    assert kept(WIDE, has=replace(small, cpus=64)) == ONLY_GONE
