"""Brings everything that a job needs to the host of a claim, up to the work tree."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dstack.app.coordination.context import CoordinationContext
from dstack.app.coordination.inputs import Inputs
from dstack.app.effects.answers import (
    BucketSilent,
    DamagedInput,
    NotBegun,
    PrepareAnswer,
    Prepared,
    Unpreparable,
)
from dstack.app.protocol.jobs import job_title
from dstack.app.transfer.artifacts import stage_inputs
from dstack.core.format.keys import AttemptKeys
from dstack.core.format.records import Claim, RunRecord
from dstack.errors import (
    BucketError,
    DamagedObjectError,
    HostError,
    HostUnreachableError,
    NoRoomError,
    NotHeldError,
    SnapshotError,
    UsageError,
)
from dstack.model import JobSpec
from dstack.ports import RunnerPort
from dstack.wire.job_messages import JobOrder

Holder = Callable[[str], RunnerPort | None]
"""The runner that holds the attempt of this nonce; None where no runner does."""


class Preparation:
    """The preparation of a run's attempts. `inputs` are the artifacts that jobs of the run take."""

    def __init__(self, context: CoordinationContext, run: RunRecord, inputs: Inputs, *, holder: Holder) -> None:
        self._context = context
        self._run = run
        self._inputs = inputs
        self._holder = holder

    async def prepare(self, claim: Claim, spec: JobSpec, attempt: AttemptKeys) -> PrepareAnswer:
        """Bring code, inputs and work tree to the host that holds the attempt."""
        link = self._context.fleet.link_of(claim)
        runner = link.reached.runner if link.reached is not None else None
        lost = f"{claim.host}: the connection was lost before the job began"
        # A hold ends with the connection of its runner: no fresh runner could start the job.
        if runner is None or runner is not self._holder(claim.nonce):
            return self._not_begun(spec, lost)
        try:
            await self._bring(runner, claim, spec, attempt)
        except HostUnreachableError as error:
            await link.drop_runner(runner)
            return self._not_begun(spec, f"{error}, before the job began")
        except NotHeldError as error:
            return self._not_begun(spec, f"{error}: its supervisor was killed")
        except NoRoomError as error:
            link.note_full(str(error))
            return self._not_begun(spec, str(error))
        except (HostError, SnapshotError, UsageError) as error:
            return Unpreparable(str(error))
        except DamagedObjectError as error:
            return DamagedInput(workflow=self._inputs.maker(spec, error), key=error.key, why=str(error))
        except BucketError as error:
            return BucketSilent(str(error))
        link.note_room()
        return Prepared()

    def _not_begun(self, spec: JobSpec, why: str) -> NotBegun:
        self._context.screen.message(f"{spec.workflow}: {why}; trying again")
        return NotBegun(why)

    async def _bring(self, runner: RunnerPort, claim: Claim, spec: JobSpec, attempt: AttemptKeys) -> None:
        context, snapshot = self._context, self._run.snapshot

        def progress(done: int, total: int) -> None:
            context.screen.progress(f"{spec.workflow}: inputs", done, total)

        inputs = [await self._inputs.read(dependency.workflow) for dependency in spec.inputs]
        _, entries = await asyncio.gather(
            runner.push_code(context.project, snapshot, context.code),
            stage_inputs(runner, context.bucket, inputs, progress=progress),
        )
        wanted = spec.resources
        order = JobOrder(
            attempt=attempt.folder,
            project=context.project,
            commit=snapshot.commit,
            tree=snapshot.tree,
            prefix=snapshot.prefix,
            script=spec.script,
            arguments=spec.arguments,
            environment=self._environment(spec, claim),
            image=spec.image,
            artifacts=spec.artifacts,
            inputs=tuple(entries),
            shm_size=wanted.shm_size,
            max_duration=claim.max_duration,
            title=f"{job_title(claim.run_name, spec.workflow)}/{attempt.number}",
            nonce=claim.nonce,
        )
        await runner.prepare(order)

    def _environment(self, spec: JobSpec, claim: Claim) -> dict[str, str]:
        """Variables, then `env:`, then the values of the claiming run alone (in no fingerprint)."""
        return {
            **spec.environment,
            **spec.env,
            "run_name": claim.run_name,
            "RUN_NAME": claim.run_name,
            "job_id": claim.nonce[:12],
            "JOB_ID": claim.nonce[:12],
        }
