"""The hosts of claims, as reached by one coordinator: their answers, their silences, and the sightings of attempts of
other accounts there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from dstack.app.effects.answers import (
    ForeignAttempt,
    HostUnreachable,
    JobStarted,
    Silence,
    StartRefused,
    Verdict,
)
from dstack.app.hosts.fleet import Fleet, Link
from dstack.app.hosts.silence import Silences
from dstack.app.protocol.liveness import Observer
from dstack.core.foreign_attempts import Sighting, belongs, is_same_boot, judge
from dstack.core.format.records import Claim, Coordinator
from dstack.errors import DstackError, HostUnreachableError
from dstack.model import HostFacts, Nonce
from dstack.ports import RunnerPort, Screen
from dstack.wire import STARTED, UNKNOWN

T = TypeVar("T")


class ClaimHosts:
    """Asks the hosts of claims; the screen shows a line for each reason of a host without an answer."""

    def __init__(self, fleet: Fleet, observer: Observer, screen: Screen) -> None:
        self._fleet = fleet
        self._observer = observer
        self._screen = screen
        self._silences = Silences()
        self._unwatched = Silences()
        """Silences of hosts of watched jobs, apart from the silences of asked hosts because both go on at once."""
        self._sightings: dict[str, Sighting] = {}

    async def ask(self, claim: Claim, request: Callable[[RunnerPort], Awaitable[T]]) -> T | None:
        """The answer of the attempt's own account.

        None when the host cannot be reached, or is reached under another account without knowledge of the attempt. Any
        other error of the host is raised.
        """

        async def own(runner: RunnerPort, facts: HostFacts) -> T | None:
            return await request(runner) if belongs(claim, facts) else None

        return await self._at(claim, own)

    async def verdict(self, claim: Claim) -> Verdict:
        """The verdict on an attempt of this account, or the sighting of another account's attempt."""

        async def own_or_seen(runner: RunnerPort, facts: HostFacts) -> Verdict:
            if belongs(claim, facts):
                said = await runner.verdict(Nonce(claim.nonce))
                return JobStarted() if said == STARTED else StartRefused()
            # In another boot the host can see nothing of the attempt: the question would say nothing.
            seen = UNKNOWN
            if is_same_boot(claim, facts):
                seen = await runner.sighting(Nonce(claim.nonce), claim.account)
            return ForeignAttempt(sighting=judge(claim, facts, seen), own_account=claim.account == facts.user)

        found: Verdict | None = await self._at(claim, own_or_seen)
        if isinstance(found, ForeignAttempt):
            self._sightings[claim.nonce] = found.sighting
        else:
            self._sightings.pop(claim.nonce, None)
        return HostUnreachable() if found is None else found

    async def _at(self, claim: Claim, request: Callable[[RunnerPort, HostFacts], Awaitable[T | None]]) -> T | None:
        """The answer to a request at the claim's host, under any account: after an answer the host is not silent."""
        link: Link | None = None
        runner: RunnerPort | None = None
        try:
            link, reached = await self._fleet.locate(claim)
            runner = reached.runner
            answer = await request(runner, reached.facts)
            self._silences.note_answer(Nonce(claim.nonce))
            return answer
        except HostUnreachableError as error:
            if link is not None and runner is not None:
                await link.drop_runner(runner)
            if self._silences.note_no_answer(Nonce(claim.nonce), str(error)):
                self._screen.message(str(error))
            return None

    def silence(self, claim: Claim, owner: Coordinator | None) -> Silence:
        """For how long the host has not answered this coordinator, neither asked nor watched."""
        nonce = Nonce(claim.nonce)
        seconds, since = max(self._silences.of(nonce), self._unwatched.of(nonce))
        return Silence(seconds=seconds, since=since, owner=owner is not None and self._observer.is_mute(owner))

    def note_watch(self, claim: Claim, error: DstackError | None) -> None:
        """Note the obstacle to watching the job, None for no obstacle. A silent bucket says nothing of the host of the
        job."""
        if isinstance(error, HostUnreachableError):
            self._unwatched.note_no_answer(Nonce(claim.nonce), str(error))
        else:
            self._unwatched.note_answer(Nonce(claim.nonce))

    def unreachable(self) -> Mapping[str, float]:
        """The attempts on hosts without an answer, and since when (time of day), by their nonces."""
        return {**self._silences.beginnings(), **self._unwatched.beginnings()}

    def sightings(self) -> Mapping[str, str]:
        """The sightings of attempts of other accounts, by their nonces."""
        return {nonce: sighting.value for nonce, sighting in self._sightings.items()}

    def forget(self, claim: Claim) -> None:
        """The attempt is over."""
        self._unwatched.note_answer(Nonce(claim.nonce))
        self._sightings.pop(claim.nonce, None)
