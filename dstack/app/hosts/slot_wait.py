"""Waits for a slot for a nonce, on the best host first and on further hosts as time passes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from dstack.app.effects.answers import NonceRefused, SlotAnswer, SlotAwaited, SlotHeld, SlotUnavailable
from dstack.app.hosts.fleet import Fleet, Link, ReachedHost, address_of
from dstack.core.placement import slots_of
from dstack.errors import DstackError, HostError, HostUnreachableError, NoRoomError, NotHeldError
from dstack.model import Demand, Nonce
from dstack.ports import RunnerPort

Ranking = Callable[[], Sequence[str]]


class SlotRace:
    """All `hold` requests of a nonce; each host's own number of slots is put into `demand`.

    Exactly one host wins; the others are dropped before `SlotHeld` is given.
    """

    def __init__(self, fleet: Fleet, nonce: Nonce, ranking: Ranking, demand: Demand) -> None:
        self._fleet = fleet
        self._nonce = nonce
        self._ranking = ranking
        self._demand = demand
        self._tasks: dict[str, asyncio.Task[ReachedHost]] = {}
        self._errors: dict[str, str] = {}
        self._refused: set[str] = set()
        self._stuck: dict[str, str] = {}
        self.won: Link | None = None
        self.holder: RunnerPort | None = None
        """The runner behind the held attempt: the end of its connection ends the hold."""

    async def wait(self, patience: float) -> SlotAnswer:
        """SlotHeld for the first host with a free slot; SlotAwaited when no slot was free within `patience` seconds,
        SlotUnavailable when no host can be asked now or the queue of a host cannot be used, NonceRefused when every
        reachable host has refused this nonce."""
        self._ask_next()
        if not self._tasks and self._refused:
            return NonceRefused()
        if not self._tasks:
            return SlotUnavailable(self.why())
        done, _ = await asyncio.wait(self._tasks.values(), timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        for name, task in list(self._tasks.items()):
            if task not in done:
                continue
            del self._tasks[name]
            self._stuck.pop(name, None)
            try:
                reached = task.result()
            except DstackError as error:
                self._fleet.links[name].busy -= 1
                self._note(name, error)
                continue
            # The others first: a host that answers a moment later must not hold a second slot for the attempt.
            await self._release_others()
            self.won, self.holder = self._fleet.links[name], reached.runner
            return SlotHeld(
                host=name,
                boot_id=reached.facts.boot_id,
                address=address_of(reached.host),
                account=reached.facts.user,
                folder=reached.facts.dir,
                place=reached.facts.place,
                machine=reached.facts.machine,
            )
        stuck = "; ".join(sorted(self._stuck.values()))
        return SlotUnavailable(stuck) if stuck else SlotAwaited()

    def _note_queue(self, name: str, text: str) -> None:
        """An awaited host says why its queue cannot be used, or "" once the queue can be used again."""
        self._stuck.pop(name, None)
        if text:
            self._stuck[name] = f"waits: {name}: {text}"

    def _note(self, name: str, error: DstackError) -> None:
        """Remember why a host does not hold the attempt."""
        if isinstance(error, NoRoomError):
            self._fleet.links[name].note_full(str(error))
        # After a lost connection the host has refused this nonce for ever: the loss is the reason, not the refusal.
        if not (isinstance(error, NotHeldError) and name in self._errors):
            self._errors[name] = str(error)
        if isinstance(error, HostError):
            self._refused.add(name)

    def why(self) -> str:
        """The last errors of the hosts, for people."""
        return "; ".join(sorted(set(self._errors.values()))) or "no host that fits can be reached"

    def _ask_next(self) -> None:
        """Ask a further host with each call: a full host must not keep a job from an idle host."""
        for name in self._ranking():
            if name not in self._tasks and name not in self._refused:
                self._fleet.links[name].busy += 1
                self._tasks[name] = asyncio.create_task(self._hold(self._fleet.links[name]))
                return

    async def _hold(self, link: Link) -> ReachedHost:
        reached = await link.reach()
        slots = slots_of(reached.host, reached.facts)
        # Slots and GPU shares are the host's own; the rest of the demand is the job's.
        demand = replace(self._demand, slots=slots, gpu_shares=reached.host.gpu_shares or 1)
        try:
            async with link.turns(slots):
                await reached.runner.hold(self._nonce, demand, partial(self._note_queue, reached.host.name))
        except HostUnreachableError:
            await link.drop_runner(reached.runner)
            raise
        return reached

    async def _release_others(self) -> None:
        tasks = dict(self._tasks)
        await self.close()
        for name in tasks:
            self._fleet.links[name].busy -= 1
            # A cancelled request may have been answered already: the drop frees the slot in any case.
            await _drop(self._fleet.links[name], self._nonce)

    async def close(self) -> None:
        """Forget all requests: the end of the connection drops each request on its host."""
        tasks, self._tasks = self._tasks, {}
        self._stuck.clear()
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def drop(self) -> None:
        """Give up waiting, and any held slot."""
        await self._release_others()
        if self.won is not None:
            self.won.busy -= 1
            link, self.won = self.won, None
            await _drop(link, self._nonce)


async def _drop(link: Link, nonce: Nonce) -> None:
    """Drop the hold. Without an answer nothing is lost: a supervisor without a connection refuses by itself."""
    if link.reached is None:
        return
    runner = link.reached.runner
    try:
        await runner.drop(nonce)
    except HostUnreachableError:
        await link.drop_runner(runner)
    except HostError:
        pass  # it held nothing
