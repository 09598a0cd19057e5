"""The artifacts of a run: which jobs of the run have some in the bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dstack.app.queries.run_views import JobView
from dstack.app.queries.runs import attempt_of, job_of, run_view
from dstack.app.transfer.committed_manifest import committed_manifest, was_pruned
from dstack.core.artifacts import manifests
from dstack.core.format.keys import AttemptKeys, ProjectKeys
from dstack.core.format.records import RunRecord
from dstack.core.lifecycle import ENDED_STATES, GOOD_STATES
from dstack.errors import DamagedObjectError, UsageError
from dstack.model import Fingerprint, Manifest
from dstack.ports import Bucket


@dataclass(frozen=True, slots=True, kw_only=True)
class JobArtifacts:
    """The artifacts of one job of a run, as the last attempt of the job has them in the bucket."""

    job: JobView
    attempt: AttemptKeys
    manifest: Manifest


@contextmanager
def noting_damage(job: JobView, damages: list[DamagedObjectError]) -> Iterator[None]:
    """Add damage of the job that comes up inside the block to `damages`, with the command that makes the job anew."""
    try:
        yield
    except DamagedObjectError as error:
        hint = f"make it anew: dstack run {job.workflow} --rerun"
        damages.append(DamagedObjectError(error.key, f"{job.workflow}: {error}", hint=hint))


def artifacts_of(
    bucket: Bucket,
    keys: ProjectKeys,
    record: RunRecord,
    workflow: str | None,
    *,
    damages: list[DamagedObjectError],
    notify: Callable[[str], None],
) -> Iterator[JobArtifacts]:
    """The jobs of a run that have artifacts in the bucket; with `workflow` only the job of this name.

    Damaged artifacts, and committed ones that are gone, go to `damages`; `notify` hears of pruned ones. Raises
    UsageError when the job of `workflow` has not ended.
    """
    view = run_view(bucket, keys, record)
    for job in (job_of(view, workflow),) if workflow else view.jobs:
        attempt = attempt_of(keys, job)
        manifest = None
        with noting_damage(job, damages):
            manifest = _manifest(bucket, keys, job, notify)
        if attempt is not None and manifest is not None:
            yield JobArtifacts(job=job, attempt=attempt, manifest=manifest)
        elif workflow and job.status not in ENDED_STATES:
            raise UsageError(
                f"{workflow} of {record.name} is {job.status}: its artifacts come when it has ended",
                hint=f"dstack logs -f {record.name} {workflow}",
            )


def _manifest(bucket: Bucket, keys: ProjectKeys, job: JobView, notify: Callable[[str], None]) -> Manifest | None:
    """The manifest of the job; None for a job without artifacts, or with pruned ones, of which `notify` hears.

    Raises DamagedObjectError for a committed manifest that is gone, or holds other bytes than the committed ones.
    """
    attempt = attempt_of(keys, job)
    if attempt is None:
        return None
    generation = keys.job(Fingerprint(job.fingerprint), job.generation)
    try:
        if job.status in GOOD_STATES:
            return committed_manifest(bucket, generation, attempt.number)
        body = bucket.get(attempt.manifest)
        return manifests.decode(attempt.manifest, body) if body is not None else None
    except DamagedObjectError:
        if not was_pruned(bucket, generation):
            raise
        notify(f"{job.workflow}: its artifacts were pruned; a run makes them again")
        return None
