"""The hosts of one coordinator: a runner each, opened at first need, opened again after a loss."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from dstack.core.foreign_attempts import belongs, is_other_machine, is_same_boot
from dstack.core.format.codec import build, plain
from dstack.core.format.records import Claim, Coordinator
from dstack.core.placement import Candidate, names_text
from dstack.errors import BucketError, DamagedObjectError, DstackError, HostKeyError, HostUnreachableError, NoHostError
from dstack.model import Host, HostFacts
from dstack.ports import RunnerPort

OpenRunner = Callable[[Host], Awaitable[RunnerPort]]
FIRST_RETRY_S = 0.5
FIRST_FULL_DISK_WAIT_S = 1.0
LONGEST_RETRY_S = 30.0
QUEUED_AHEAD = 4
RUNNER_LOOK_S, RUNNER_MUTE_S = 20.0, 60.0
"""Seconds between two looks at an open runner, and seconds without a sign of life until the runner is given up."""
LATECOMER_WAIT_S = 1.0
"""Seconds for which the first host to answer waits for the others, for the sake of a better host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachedHost:
    """A host with an open runner."""

    host: Host
    facts: HostFacts
    runner: RunnerPort


class Link:
    """A host: at most one runner at a time; concurrent callers share the opening."""

    def __init__(self, host: Host, open_runner: OpenRunner) -> None:
        self.host = host
        self.busy = 0
        """Jobs of this coordinator with a slot here, or about to ask for a slot."""
        self.error: DstackError | None = None
        self.facts: HostFacts | None = None
        """The facts from the last answer of the host, None without any answer so far."""
        self.images: dict[str, bool] = {}
        """Whether Docker has an image here, by the names of the images asked for."""
        self.full = ""
        """The message of the last full disk here, "" once there was room again."""
        self._empty_at = 0.0
        self._full_wait = 0.0
        self._open = open_runner
        self._reached: ReachedHost | None = None
        self._beating: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._lock = asyncio.Lock()
        self._looking = asyncio.Lock()
        self._wait = 0.0
        self._turns: asyncio.Semaphore | None = None

    def turns(self, slots: int) -> asyncio.Semaphore:
        """The semaphore to hold while a slot is asked for, to keep the queue of the host short.

        Beyond the jobs that fit into `slots` only QUEUED_AHEAD wait on the host: enough for small jobs to find the gaps
        left by a large job. All others wait here in their order, at no cost to the host.
        """
        if self._turns is None:
            self._turns = asyncio.Semaphore(slots + QUEUED_AHEAD)
        return self._turns

    async def reach(self) -> ReachedHost:
        """The open runner; raises HostUnreachableError, HostKeyError or HostError (also kept in `error`).

        Any unforeseen error of the opening becomes a HostUnreachableError with the kind of the error.
        """
        async with self._lock:
            if self._reached is None:
                self._reached = await self._connect()
                self._beating = asyncio.create_task(self._beat(self._reached.runner))
            return self._reached

    async def _beat(self, runner: RunnerPort) -> None:
        """Give up the runner after RUNNER_MUTE_S seconds without a sign of life.

        Otherwise a caller in wait for an answer or for more of a log would wait for ever.
        """
        try:
            while True:
                await asyncio.sleep(RUNNER_LOOK_S)
                await runner.pulse(RUNNER_MUTE_S)
        except DstackError:
            await self.drop_runner(runner)

    async def _connect(self) -> ReachedHost:
        if self._wait:
            await asyncio.sleep(self._wait)
        try:
            runner = await self._open(self.host)
            facts = await runner.facts()
        except DstackError as error:
            self._failed(error)
            raise
        except Exception as error:
            # Unforeseen, on the way to the host: what runs there is not known, as with any that is not reached.
            text = " ".join(f"{type(error).__name__}: {error}".split())[:1000].rstrip(":")
            unforeseen = HostUnreachableError(self.host.name, text, hint="report this")
            self._failed(unforeseen)
            raise unforeseen from error
        self.error, self.facts, self._wait = None, facts, 0.0
        return ReachedHost(host=self.host, facts=facts, runner=runner)

    def _failed(self, error: DstackError) -> None:
        self.error = error
        self._wait = min(LONGEST_RETRY_S, max(FIRST_RETRY_S, self._wait * 2))

    @property
    def reached(self) -> ReachedHost | None:
        return self._reached

    def note_full(self, why: str) -> None:
        """The disk of the host is full: nothing is brought there for a while, longer each time."""
        self._full_wait = min(LONGEST_RETRY_S, max(FIRST_FULL_DISK_WAIT_S, self._full_wait * 2))
        self.full, self._empty_at = why, time.monotonic() + self._full_wait

    def note_room(self) -> None:
        """There was room on the disk of the host."""
        self.full, self._full_wait = "", 0.0

    @property
    def has_room(self) -> bool:
        return not self.full or time.monotonic() >= self._empty_at

    async def look_for(self, image: str) -> None:
        """Find out whether the image is on the reached host, once; a host without an answer tells nothing."""
        # Many jobs may become ready at once: the first one asks, for all.
        async with self._looking:
            if self._reached is None or image in self.images or not self._reached.facts.docker:
                return
            try:
                self.images[image] = image in await self._reached.runner.images([image])
            except DstackError:
                pass  # whoever needs the host next is told why

    async def drop_runner(self, runner: RunnerPort) -> None:
        """This runner's connection failed: the next `reach` opens another, and does not wait for the end of this
        runner."""
        if self._reached is not None and self._reached.runner is runner:
            self._reached = None
            # `_beat` drops its own runner here, and would not come to the end of this method if it cancelled itself.
            if self._beating is not None and self._beating is not asyncio.current_task():
                self._beating.cancel()
            closing = asyncio.create_task(_close(runner))
            # The event loop refers to tasks weakly: a task without a reference may vanish before its end.
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            # What waited for an answer of this runner hears of the loss before anything else is asked.
            await asyncio.sleep(0)

    async def close(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
        if self._reached is not None:
            await self.drop_runner(self._reached.runner)
        await asyncio.gather(*self._closing)


async def _quietly(link: Link) -> None:
    try:
        await link.reach()
    except DstackError:
        pass  # kept in `link.error`


async def _close(runner: RunnerPort) -> None:
    try:
        await runner.close()
    except DstackError:
        pass  # it is gone already, which is what was wanted


class Fleet:
    """All hosts of the inventory, and the hosts named by claims of other coordinators."""

    def __init__(self, inventory: tuple[Host, ...], open_runner: OpenRunner) -> None:
        self._open = open_runner
        self.links: dict[str, Link] = {str(host.name): Link(host, open_runner) for host in inventory}
        self._foreign: dict[str, Link] = {}
        self._trying: dict[str, asyncio.Task[None]] = {}
        self._asking: dict[str, asyncio.Task[bool]] = {}
        self._located: dict[str, Link] = {}
        """Where the attempts of claims were found, by their nonces."""

    def has_ended(self, coordinator: Coordinator, claim: Claim) -> bool:
        """Whether the claim's host says that this coordinator, a former process there, has ended.

        Does not wait: False means no answer so far, and asks again.
        """
        asked = self._asking.get(coordinator.id)
        if asked is None:
            self._asking[coordinator.id] = asyncio.create_task(self._ask_after(coordinator, claim))
        elif asked.done():
            del self._asking[coordinator.id]
            return asked.result()
        return False

    async def _ask_after(self, coordinator: Coordinator, claim: Claim) -> bool:
        link: Link | None = None
        reached: ReachedHost | None = None
        try:
            link, reached = await self.locate(claim)
            # Another machine, or another boot: the locks there say nothing of this coordinator.
            if reached.facts.boot_id != coordinator.boot_id:
                return False
            return coordinator.id in await reached.runner.ended_coordinators([coordinator.id])
        except HostUnreachableError:
            if link is not None and reached is not None:
                await link.drop_runner(reached.runner)
            return False
        except DstackError:
            return False

    async def locate(self, claim: Claim) -> tuple[Link, ReachedHost]:
        """The host of a claim, reached under the account of the attempt where any entry leads there, else under another
        account.

        The name of a machine in an inventory, or of its user, never changes the account of an attempt. Raises as
        `Link.reach` does when no entry for the host can be reached.
        """
        found = self._located.get(claim.nonce)
        if found is not None and found.reached is not None:
            return found, found.reached
        foreign: Link | None = None
        failure: DstackError | None = None
        for link in self._entries(claim):
            try:
                facts = (await link.reach()).facts
            except DstackError as error:
                failure = failure or error
                continue
            # An entry that leads to the attempt's own account ends the search; any other machine is no answer at all.
            if belongs(claim, facts):
                foreign = link
                break
            if foreign is None and not is_other_machine(claim, facts):
                foreign = link
        if foreign is None or foreign.reached is None:
            raise failure or HostUnreachableError(claim.host, "another machine answers under that name")
        self._located[claim.nonce] = foreign
        return foreign, foreign.reached

    def _entries(self, claim: Claim) -> list[Link]:
        """The entries that may lead to the host of a claim, entries known to lead there first."""
        reached = [(link, link.reached.facts) for link in self.links.values() if link.reached is not None]
        named = self.links.get(claim.host)
        found = [link for link, facts in reached if claim.place and belongs(claim, facts)]
        # The name says where the host was meant to be; several entries may lead to one machine.
        found += [named] if named is not None else []
        found.append(self._entry_of(claim))
        found += [link for link, facts in reached if is_same_boot(claim, facts)]
        return list(dict.fromkeys(found))

    def link_of(self, claim: Claim) -> Link:
        """The link to the host of a claim: where the attempt was located, or by the entry in the claim.

        Raises DamagedObjectError when the claim does not say where its host is.
        """
        return self._located.get(claim.nonce) or self._entry_of(claim)

    def _entry_of(self, claim: Claim) -> Link:
        """The inventory's link when its entry is the entry of the claim, else a link made from the claim; raises
        DamagedObjectError as `link_of` does."""
        link = self.links.get(claim.host)
        if link is not None and address_of(link.host) == claim.address:
            return link
        entry = json.dumps([claim.host, claim.address], sort_keys=True)
        if entry not in self._foreign:
            try:
                host = build(Host, dict(claim.address), claim.host)
            except BucketError as error:
                where = f"the claim of {claim.run_name} on {claim.host}"
                raise DamagedObjectError(where, f"{where} does not say where that host is: {error}") from None
            self._foreign[entry] = Link(host, self._open)
        return self._foreign[entry]

    async def connect(self) -> None:
        """Try all hosts at once; raises when none answers: HostKeyError for an unconfirmed key, else NoHostError.

        Once a host answers, the other hosts get LATECOMER_WAIT_S more; after that they are tried in the background.
        """
        links = list(self.links.values())
        for name in self.links:
            self._try(name)
        while self._trying and not any(link.reached for link in links):
            await asyncio.wait(self._trying.values(), return_when=asyncio.FIRST_COMPLETED)
        if any(link.reached for link in links):
            if self._trying:
                await asyncio.wait(self._trying.values(), timeout=LATECOMER_WAIT_S)
            return
        errors = [link.error for link in links if link.error is not None]
        # A person can confirm a key at once, and cannot mend a host that is away: the key comes first.
        key_errors = [error for error in errors if isinstance(error, HostKeyError)]
        if key_errors:
            raise key_errors[0]
        if len(errors) == 1:
            error = errors[0]
            if isinstance(error, HostUnreachableError):
                raise error
            raise NoHostError(str(error), hint=error.hint)
        raise NoHostError(
            "none of the hosts can be used:\n" + "\n".join(f"  {error}" for error in errors),
            hint="`dstack hosts check` tries each of them and says what is wrong",
        )

    async def wait_for_tries(self, patience: float) -> None:
        """Wait until every host was tried once, at most `patience` seconds."""
        if self._trying:
            await asyncio.wait(self._trying.values(), timeout=patience)

    def names_text(self) -> str:
        """The hosts in a few words."""
        return names_text(list(self.links))

    async def ready(self, patience: float) -> None:
        """Try every absent host, in the background; returns once a host is reached, or after `patience` seconds."""
        for name, link in self.links.items():
            if link.reached is None and name not in self._trying:
                self._try(name)
        if self._trying and not any(link.reached for link in self.links.values()):
            await asyncio.wait(self._trying.values(), timeout=patience, return_when=asyncio.FIRST_COMPLETED)

    def _try(self, name: str) -> None:
        task = asyncio.create_task(_quietly(self.links[name]))
        self._trying[name] = task
        task.add_done_callback(partial(self._tried, name))

    def _tried(self, name: str, _: asyncio.Task[None]) -> None:
        self._trying.pop(name, None)

    def facts(self) -> Mapping[str, HostFacts]:
        return {name: link.reached.facts for name, link in self.links.items() if link.reached}

    async def look_for(self, image: str) -> None:
        """Find out on which of the reached hosts the image is, where the image makes a difference."""
        # With one host there is nothing to choose.
        if len(self.links) > 1:
            await asyncio.gather(*(link.look_for(image) for link in self.links.values()))

    def full(self) -> str:
        """In words why nothing can be brought to any reached host now; "" where one has room, or none is reached."""
        reached = [link for link in self.links.values() if link.reached]
        if any(link.has_room for link in reached):
            return ""
        return "; ".join(link.full for link in reached)

    def candidates(self, inputs: Mapping[str, int], *, image: str | None = None) -> tuple[Candidate, ...]:
        """The reached hosts, with how many of the job's inputs were made on each, and whether its image is there."""
        return tuple(
            Candidate(
                host=link.host,
                facts=link.reached.facts,
                busy=link.busy,
                inputs=inputs.get(name, 0),
                has_image=image is not None and link.images.get(image, False),
            )
            for name, link in self.links.items()
            if link.reached and link.has_room
        )

    async def close(self) -> None:
        tasks = [*self._trying.values(), *self._asking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for link in [*self.links.values(), *self._foreign.values()]:
            await link.close()


def address_of(host: Host) -> dict[str, Any]:
    """The inventory entry as it stands in a claim: without the place in the file."""
    fields = plain(host)
    fields.pop("position", None)
    return dict(fields)
