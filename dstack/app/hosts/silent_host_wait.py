"""The meaning of silent hosts for jobs without a fitting connected host: the hosts to wait for, and for how long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from dstack.app.hosts.fleet import Fleet, Link
from dstack.app.hosts.silence import Silences
from dstack.app.protocol.lease import SILENCE_S
from dstack.core.placement import AwayHost, Prospect, prospect
from dstack.errors import HostUnreachableError, NoHostError
from dstack.model import JobSpec

PROSPECT_PAUSE_S = 1.0
"""Seconds between two looks at awaited hosts."""


class Prospects:
    """The prospects of jobs on a fleet. A host counts as silent while its prospect is asked for, and only then.

    `limit` is the silence in seconds after which a host without any answer so far is given up; `clock` gives seconds.
    """

    def __init__(self, fleet: Fleet, *, limit: float = SILENCE_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._fleet = fleet
        self._limit = limit
        self._silences = Silences(clock)

    def of(self, spec: JobSpec) -> Prospect | None:
        """The prospect of the job by the fleet as of now, None where a connected host can run the job."""
        absent = {}
        for name, link in self._fleet.links.items():
            if link.reached is None:
                absent[name] = self._away_host(name, link)
            else:
                self._silences.note_answer(name)
        return prospect(spec, self._fleet.facts(), absent, limit=self._limit)

    def _away_host(self, name: str, link: Link) -> AwayHost:
        why = str(link.error) if link.error is not None else ""
        # Any other error came from a host that answered: waiting will not change what it said.
        refused = link.error is not None and not isinstance(link.error, HostUnreachableError)
        self._silences.note_no_answer(name, why)
        return AwayHost(why=why, refused=refused, seconds=self._silences.of(name)[0], facts=link.facts)

    def require(self, spec: JobSpec) -> Prospect | None:
        """The prospect of the job; raises NoHostError for a refusal."""
        found = self.of(spec)
        if found is not None and found.refusal:
            raise NoHostError(f"no host can run {spec.workflow}: {found.refusal}", hint=self._way_out(spec))
        return found

    def _way_out(self, spec: JobSpec) -> str:
        if len(self._fleet.facts()) < len(self._fleet.links):
            return "`dstack hosts check` tries each host and says what is wrong"
        if spec.image is not None and not any(fact.docker for fact in self._fleet.facts().values()):
            return "install Docker, add the user to its group, or `dstack hosts add` a host that has it"
        return "ask for less under `resources:`, or `dstack hosts add` one"

    async def require_all(self, specs: Sequence[JobSpec], tell: Callable[[str], None]) -> None:
        """Return once every job has a host known to fit.

        Raises NoHostError for the first job without a host, once each possible host has been silent for the limit;
        `tell` gets one line with the awaited hosts.
        """
        told_text = ""
        while True:
            found = [(spec, self.require(spec)) for spec in specs]
            open_ = next(((spec, each) for spec, each in found if each is not None and not each.likely), None)
            if open_ is None:
                return
            text = f"{open_[0].workflow} {open_[1].note}; given up after {self._limit:.0f} s"
            # A host that is merely slow is not called unreachable.
            if text != told_text and not open_[1].early:
                told_text = text
                tell(text)
            await self._fleet.ready(PROSPECT_PAUSE_S)
            # `ready` returns at once where any host is reached: the pause between two looks is this one.
            await asyncio.sleep(PROSPECT_PAUSE_S)
