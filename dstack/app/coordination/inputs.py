"""The places of the artifacts of a run's settled jobs, which are inputs of later jobs."""

from __future__ import annotations

import asyncio

from dstack.app.transfer.committed_manifest import committed_manifest
from dstack.core.format.keys import AttemptKeys, JobKeys, ProjectKeys
from dstack.core.format.records import Outcome
from dstack.errors import DamagedObjectError
from dstack.model import Fingerprint, JobSpec, Manifest, WorkflowName
from dstack.ports import Bucket


class Inputs:
    """`outcomes` are the settled jobs, by workflow; an outcome may be the replacement of a damaged result."""

    def __init__(self, bucket: Bucket, keys: ProjectKeys) -> None:
        self._bucket = bucket
        self._keys = keys
        self.outcomes: dict[WorkflowName, Outcome] = {}

    def generation(self, workflow: WorkflowName) -> JobKeys:
        """The generation that holds the artifacts of a settled job."""
        outcome = self.outcomes[workflow]
        return self._keys.job(Fingerprint(outcome.fingerprint), outcome.generation)

    def maker(self, spec: JobSpec, damage: DamagedObjectError) -> WorkflowName:
        """The input of the job with the damaged object among its artifacts; raises `damage` where the object is of no
        input."""
        for dependency in spec.inputs:
            if damage.key.startswith(self.generation(dependency.workflow).folder):
                return dependency.workflow
        raise damage

    async def read(self, workflow: WorkflowName) -> tuple[str, AttemptKeys, Manifest]:
        """The workflow, the keys of its artifacts, and the manifest; raises DamagedObjectError when the manifest is
        gone or is another than was committed, also when read once more."""
        generation, outcome = self.generation(workflow), self.outcomes[workflow]

        def read() -> Manifest:
            return committed_manifest(self._bucket, generation, outcome.attempt, outcome.digest)

        try:
            manifest = await asyncio.to_thread(read)
        except DamagedObjectError:
            # What came may not be what lies there.
            manifest = await asyncio.to_thread(read)
        return workflow, generation.attempt(outcome.attempt), manifest
