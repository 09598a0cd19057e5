"""Handing a recorded run to the coordinators on its hosts, so that it goes on without the machine it was started on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from dstack.app.fleet import Link, Reached
from dstack.core.placement import Peer
from dstack.errors import DstackError
from dstack.model import HostName, Snapshot
from dstack.ports import CodeSource

Look = Callable[[Reached], Awaitable[None]]
"""Whether the coordinator can work there: raises DstackError with the reason when it cannot."""
Give = Callable[[Reached, Sequence[Peer]], Awaitable[None]]
"""Hands the run over; raises DstackError with the reason when it is not taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """Which hosts work on the run by themselves now, and why the others do not, in words."""

    taken: tuple[HostName, ...]
    left: tuple[tuple[HostName, str], ...]


async def hand_out(
    links: Sequence[Link], *, project: str, snapshot: Snapshot, code: CodeSource, look: Look, give: Give
) -> Handed:
    """Hand the run to every reached host that can work on it alone; the code is there before the run is.

    A host for this machine itself is left: whoever started the run looks after it here. Raises nothing for what a
    host lacks or says: it is then among those left, with the reason.
    """
    left: dict[HostName, str] = {}
    able: list[Reached] = []

    async def bring(link: Link) -> None:
        reached = link.reached
        if reached is None:
            return
        try:
            await look(reached)
            await reached.runner.push_code(project, snapshot, code)
            able.append(reached)
        except DstackError as error:
            left[link.host.name] = str(error)

    async def take(reached: Reached, peers: Sequence[Peer]) -> None:
        try:
            await give(reached, peers)
        except DstackError as error:
            left[reached.host.name] = str(error)

    remote = [link for link in links if not link.host.local]
    left.update({link.host.name: "" for link in links if link.host.local})
    await asyncio.gather(*map(bring, remote))
    order = {link.host.name: place for place, link in enumerate(links)}
    able.sort(key=lambda reached: order[reached.host.name])
    peers = tuple(Peer(name=reached.host.name, facts=reached.facts) for reached in able)
    await asyncio.gather(*(take(reached, peers) for reached in able))
    taken = tuple(peer.name for peer in peers if peer.name not in left)
    return Handed(taken=taken, left=tuple(left.items()))
