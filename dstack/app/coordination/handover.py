"""Handing a recorded run to the coordinators on its hosts, so that the run goes on without the first machine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from dstack.app.hosts.fleet import Link, ReachedHost
from dstack.core.placement import Peer, only_chances, slots_of
from dstack.errors import DstackError
from dstack.model import HostName, JobSpec, Snapshot
from dstack.ports import CodeSource

CheckHost = Callable[[ReachedHost], Awaitable[object]]
"""Whether the coordinator can work there: raises DstackError with the reason when not."""
GiveRun = Callable[[ReachedHost, Sequence[Peer]], Awaitable[float | None]]
"""Hands the run over -> the end of the lent credentials; raises DstackError when the host does not take the run."""


@dataclass(frozen=True, slots=True)
class LeftHost:
    """A host that does not work on a run by itself. `why` is a sentence that stands alone, `detail` the same sentence
    beside the name of the host; both are "" for this machine."""

    name: HostName
    why: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoverResult:
    """The hosts that work on the run by themselves now, and the reasons why the others do not, in words."""

    taken: tuple[HostName, ...]
    left: tuple[LeftHost, ...]
    until: tuple[tuple[HostName, float], ...] = ()
    """The end of the credentials that were lent to a host, in seconds since the epoch, where the end is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyHosts:
    """Hosts that can work on a run alone, with the code there already, and the reasons why the others cannot."""

    able: tuple[ReachedHost, ...]
    images: Mapping[HostName, tuple[str, ...]]
    """The images of the run that each able host has."""
    left: tuple[LeftHost, ...]


async def make_ready(
    links: Sequence[Link],
    *,
    project: str,
    snapshot: Snapshot,
    code: CodeSource,
    look: CheckHost,
    images: Sequence[str] = (),
) -> ReadyHosts:
    """Find out which of the reached hosts can work alone, and bring the code to them; the run need not be recorded yet.

    The host for this machine itself is left out: the process that started the run looks after the run here. Raises
    nothing for missing parts or errors of a host: the host is then among the hosts left, with the reason.
    """
    left = {link.host.name: LeftHost(link.host.name) for link in links if link.host.local}
    able: dict[HostName, ReachedHost] = {}
    present: dict[HostName, tuple[str, ...]] = {}

    async def bring(link: Link) -> None:
        reached = link.reached
        if reached is None or link.host.local:
            return
        try:
            await look(reached)
            await reached.runner.push_code(project, snapshot, code)
            asked = images if reached.facts.docker else ()
            present[link.host.name] = tuple(await reached.runner.images(asked)) if asked else ()
            able[link.host.name] = reached
        except DstackError as error:
            left[link.host.name] = LeftHost(link.host.name, str(error), error.detail)

    await asyncio.gather(*map(bring, links))
    ordered = tuple(able[link.host.name] for link in links if link.host.name in able)
    return ReadyHosts(able=ordered, images=present, left=tuple(left.values()))


async def hand_out(ready: ReadyHosts, give: GiveRun) -> HandoverResult:
    """Hand a recorded run to every host that is ready. Raises nothing for errors of a host, as above."""
    left = {each.name: each for each in ready.left}
    until: dict[HostName, float] = {}
    peers = tuple(
        Peer(
            name=reached.host.name,
            facts=reached.facts,
            slots=slots_of(reached.host, reached.facts),
            images=ready.images.get(reached.host.name, ()),
        )
        for reached in ready.able
    )

    async def take(reached: ReachedHost) -> None:
        try:
            end = await give(reached, peers)
            if end is not None:
                until[reached.host.name] = end
        except DstackError as error:
            left[reached.host.name] = LeftHost(reached.host.name, str(error), error.detail)

    await asyncio.gather(*map(take, ready.able))
    taken = tuple(peer.name for peer in peers if peer.name not in left)
    return HandoverResult(taken=taken, left=tuple(left.values()), until=tuple(until.items()))


def still_awaited(links: Sequence[Link], jobs: Sequence[JobSpec]) -> tuple[LeftHost, ...]:
    """The hosts out of reach without which some job can be run nowhere, each with the reason in words.

    Nothing can be handed to a host out of reach, and the hosts with the run can never run the job: the handing process
    has to go on waiting for the host.
    """
    present = {str(link.host.name): link.reached.facts for link in links if link.reached}
    away = {str(link.host.name): link.facts for link in links if not link.reached}
    details = {
        name: f"cannot be reached, and no other host can run {workflow}"
        for name, workflow in only_chances(jobs, present, away).items()
    }
    return tuple(LeftHost(HostName(name), f"{name}: {detail}", detail) for name, detail in details.items())
