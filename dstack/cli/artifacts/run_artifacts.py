"""The artifacts of a run: which of its jobs have some in the bucket."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dstack.app.queries.runs import attempt_of, job_of, run_view
from dstack.app.queries.views import JobView
from dstack.app.transfer.committed_manifest import committed_manifest, was_pruned
from dstack.core.artifacts import manifests
from dstack.core.format.keys import AttemptKeys
from dstack.core.format.records import RunRecord
from dstack.core.lifecycle import ENDED, GOOD
from dstack.errors import DamagedObjectError, UsageError
from dstack.model import Fingerprint, Manifest
from dstack.session.session import Session
from dstack.ui.terminal import clean_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What one job of a run left behind."""

    job: JobView
    attempt: AttemptKeys
    manifest: Manifest


@contextmanager
def noting_damage(job: JobView, damages: list[DamagedObjectError]) -> Iterator[None]:
    """What is damaged of a job goes to `damages`, with the command that makes it anew."""
    try:
        yield
    except DamagedObjectError as error:
        hint = f"make it anew: dstack run {job.workflow} --rerun"
        damages.append(DamagedObjectError(error.key, f"{job.workflow}: {error}", hint=hint))


def artifacts_of(
    session: Session, record: RunRecord, workflow: str | None, damages: list[DamagedObjectError]
) -> Iterator[Left]:
    """The jobs that have artifacts in the bucket; those that should and have not go to `damages`.

    Raises UsageError when the asked-for one has not ended.
    """
    view = run_view(session.bucket, session.keys, record)
    for job in (job_of(view, workflow),) if workflow else view.jobs:
        attempt = attempt_of(session.keys, job)
        manifest = None
        with noting_damage(job, damages):
            manifest = _manifest(session, job)
        if attempt is not None and manifest is not None:
            yield Left(job=job, attempt=attempt, manifest=manifest)
        elif workflow and job.status not in ENDED:
            raise UsageError(
                f"{workflow} of {record.name} is {job.status}: its artifacts come when it has ended",
                hint=f"dstack logs -f {record.name} {workflow}",
            )


def _manifest(session: Session, job: JobView) -> Manifest | None:
    """What the job left behind; None for nothing, or where that was pruned, which is said.

    Raises DamagedObjectError when it should be there and is not, or is not what was committed.
    """
    attempt = attempt_of(session.keys, job)
    if attempt is None:
        return None
    generation = session.keys.job(Fingerprint(job.fingerprint), job.generation)
    try:
        if job.status in GOOD:
            return committed_manifest(session.bucket, generation, attempt.number)
        body = session.bucket.get(attempt.manifest)
        return manifests.decode(attempt.manifest, body) if body is not None else None
    except DamagedObjectError:
        if not was_pruned(session.bucket, generation):
            raise
        sys.stderr.write(clean_lines(f"{job.workflow}: its artifacts were pruned; a run makes them again\n"))
        return None
