"""Finds a slot for each job of one run, on the hosts of one coordinator, in turn with other coordinators of the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from dstack.app.coordination.context import CoordinationContext
from dstack.app.effects.answers import NonceRefused, SlotAnswer, SlotAwaited, SlotUnavailable
from dstack.app.hosts.silent_host_wait import Prospects
from dstack.app.hosts.slot_wait import SlotRace
from dstack.app.protocol import job_secrets
from dstack.app.protocol.jobs import job_title
from dstack.core.format.records import Outcome, RunRecord
from dstack.core.placement import RunLoad, no_host_reason, peers_note, rank
from dstack.model import Demand, JobSpec, Nonce, WorkflowName
from dstack.ports import RunnerPort


class SlotSearch:
    """The slots that one run holds and waits for on the hosts. `outcomes` are the settled jobs: the inputs of later
    jobs.

    `running` gives the number of the run's jobs at work on each host; `show_reason` shows why a job waits.
    """

    def __init__(
        self,
        context: CoordinationContext,
        run: RunRecord,
        outcomes: Mapping[WorkflowName, Outcome],
        *,
        running: Callable[[], Mapping[str, int]],
        show_reason: Callable[[JobSpec, str], None],
    ) -> None:
        self._context = context
        self._run = run
        self._outcomes = outcomes
        self._running = running
        self._show_reason = show_reason
        self._races: dict[str, SlotRace] = {}
        self._turns: dict[str, float] = {}
        self._prospects = Prospects(context.fleet)

    async def hold(self, nonce: Nonce, spec: JobSpec, patience: float) -> SlotAnswer:
        """The answer of `SlotRace.wait`; before the first host is asked SlotAwaited while other hosts have their turn,
        and SlotUnavailable with the things that this coordinator lacks."""
        missing = self._missing(spec)
        if missing:
            # The steps ask again at once: an answer without a wait would keep the event loop busy.
            await asyncio.sleep(patience)
            return SlotUnavailable(missing)
        race = self._races.get(nonce)
        if race is None:
            # Only before the first host is asked: a place in a queue is not given up for the turn of another host.
            if not await self._is_turn(nonce, spec, patience):
                return SlotAwaited()
            race = self._races[nonce] = self._race(nonce, spec)
        await self._context.fleet.ready(patience)
        full = self._context.fleet.full()
        if full:
            await asyncio.sleep(patience)
            return SlotUnavailable(full)
        if spec.image:
            await self._context.fleet.look_for(spec.image)
        answer = await race.wait(patience)
        if isinstance(answer, SlotUnavailable):
            answer = SlotUnavailable(self._silent_hosts(spec) or answer.why)
        if isinstance(answer, NonceRefused):
            self._show_reason(spec, race.why())
        if isinstance(answer, SlotUnavailable | NonceRefused):
            await asyncio.sleep(patience)
        return answer

    def _race(self, nonce: Nonce, spec: JobSpec) -> SlotRace:
        demand = Demand(
            slots=1, resources=spec.resources, priority=spec.priority, title=job_title(self._run.name, spec.workflow)
        )

        def ranking() -> tuple[str, ...]:
            return rank(spec, self._context.fleet.candidates(self._inputs_by_host(spec), image=spec.image))

        return SlotRace(self._context.fleet, nonce, ranking, demand)

    def _missing(self, spec: JobSpec) -> str | None:
        """The things that this coordinator would need to claim the job, and does not have."""
        awaited = job_secrets.missing_value(spec, self._context.caller, self._run.user)
        if awaited is not None:
            return awaited
        if not self._context.code.has(self._run.snapshot):
            return f"waits for a coordinator of {self._run.user}, who has the code"
        facts = self._context.fleet.facts()
        why = no_host_reason(spec, facts) if len(facts) == len(self._context.fleet.links) else None
        return peers_note(spec, why, self._context.peers, user=self._run.user) if why is not None else None

    def _silent_hosts(self, spec: JobSpec) -> str | None:
        """The silent hosts that the job waits for, where no connected host can run the job.

        Nothing is given up here, however long: another coordinator may reach hosts unknown to this coordinator.
        """
        prospect = self._prospects.of(spec)
        return prospect.note if prospect is not None else None

    async def _is_turn(self, nonce: Nonce, spec: JobSpec, patience: float) -> bool:
        """Whether the hosts before this host have had their time; waits for their time, at most `patience` seconds."""
        now = asyncio.get_running_loop().time()
        if nonce not in self._turns:
            standing = RunLoad(inputs=self._inputs_by_host(spec), running=self._running())
            self._turns[nonce] = now + self._context.turn(spec, standing)
        begins = self._turns[nonce]
        await asyncio.sleep(min(patience, max(0.0, begins - now)))
        return begins - now <= patience

    def _inputs_by_host(self, spec: JobSpec) -> dict[str, int]:
        """The number of the job's inputs that were made on each host."""
        made: dict[str, int] = {}
        for dependency in spec.inputs:
            outcome = self._outcomes.get(dependency.workflow)
            if outcome is not None:
                made[outcome.host] = made.get(outcome.host, 0) + 1
        return made

    def holder(self, nonce: str) -> RunnerPort | None:
        """The runner that holds the attempt, None where no runner does."""
        race = self._races.get(nonce)
        return race.holder if race is not None else None

    async def drop(self, nonce: Nonce) -> None:
        """Give up waiting, and the held slot."""
        race = self._races.pop(nonce, None)
        if race is not None:
            await race.drop()

    def release(self, nonce: str) -> None:
        """Free the slot of a held job that is over."""
        race = self._races.pop(nonce, None)
        if race is not None and race.won is not None:
            race.won.busy -= 1

    async def close(self) -> None:
        """Forget all requests; held supervisors refuse by themselves."""
        for race in self._races.values():
            await race.close()
