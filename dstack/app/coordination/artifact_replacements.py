"""Replacements, within a run, for results whose artifacts turned out damaged when a job took the artifacts.

The recorded outcome of the run is never changed: only the source of the bytes. So the replacement of a result must have
the same content. All coordinators of all runs come to the same generation (`settlement.make_again`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dstack.app.coordination.effect_driver import Driver
from dstack.app.effects.steps import take
from dstack.app.protocol import settlement
from dstack.app.protocol.jobs import Job
from dstack.core.format.records import Coordinator, Outcome
from dstack.core.lifecycle import GOOD_STATES
from dstack.errors import DamagedInputError, DamagedObjectError, LaterVersionError
from dstack.model import Fingerprint, JobSpec, WorkflowName
from dstack.ports import Screen

MAX_REPLACEMENTS = 3
"""Times that the artifacts of a job are made anew within a run: a store may damage all objects."""

JobOf = Callable[[Outcome], Job]
"""Outcome -> the job of the outcome, to be made `again`."""


class Replacements:
    """The replacements of damaged results in a run, in the hands of a coordinator."""

    def __init__(
        self,
        driver: Driver,
        screen: Screen,
        me: Coordinator,
        *,
        job_of: JobOf,
        one_at_a_time: Callable[[Fingerprint], asyncio.Lock],
    ) -> None:
        self._driver = driver
        self._screen = screen
        self._me = me
        self._job_of = job_of
        self._one_at_a_time = one_at_a_time
        self._times: dict[WorkflowName, int] = {}
        self._locks: dict[WorkflowName, asyncio.Lock] = {}

    async def replace(self, taker: JobSpec, damage: DamagedInputError) -> str:
        """Find or make anew the damaged input of `taker` -> "" when `taker` may be tried again, else the reason why
        not.

        Raises BucketError when the store does not answer.
        """
        workflow = WorkflowName(damage.workflow)
        async with self._locks.setdefault(workflow, asyncio.Lock()):
            # Another taker may have had the artifacts replaced meanwhile: the damage then lies in a former generation.
            while damage.key.startswith(self._driver.inputs.generation(workflow).folder):
                if self._times.get(workflow, 0) >= MAX_REPLACEMENTS:
                    return f"made anew {MAX_REPLACEMENTS} times it was damaged each time"
                try:
                    return await self._replace(workflow, taker, str(damage))
                except DamagedInputError as deeper:
                    spec = next(spec for spec in self._driver.specs if spec.workflow == workflow)
                    why = await self.replace(spec, deeper)
                    if why:
                        return f"it cannot be made anew, because its own input {deeper.workflow} is damaged: {why}"
                except (DamagedObjectError, LaterVersionError) as error:
                    return f"it cannot be made anew: {error}"
        return ""

    async def _replace(self, workflow: WorkflowName, taker: JobSpec, why: str) -> str:
        taken = self._driver.outcomes[workflow]
        self._screen.message(f"{taker.workflow}: its input {workflow} is damaged and is made anew: {why}")
        steps = settlement.make_again(self._job_of(taken), self._me, taken, taker=taker.workflow, why=why)
        async with self._one_at_a_time(Fingerprint(taken.fingerprint)):
            with self._driver.shown_as(workflow, taker.workflow):
                found = await take(steps, self._driver)
        if found is None:
            return ""
        if found.status not in GOOD_STATES:
            return f"made anew it {found.status}{f': {found.reason}' if found.reason else ''}"
        if found.digest != taken.digest:
            return "made anew it has another content than the one that this run began with"
        self._times[workflow] = self._times.get(workflow, 0) + 1
        self._driver.outcomes[workflow] = found
        return ""
