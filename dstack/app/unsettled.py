"""Jobs of runs that are not final: what they do, by what stands in the bucket. Reads only."""

from __future__ import annotations

from collections.abc import Mapping

from dstack.app.views import JobView
from dstack.core.fingerprint import fingerprint, ingredients
from dstack.core.keys import JobKeys, ProjectKeys
from dstack.core.lifecycle import GOOD
from dstack.core.records import Claim, Outcome, RunRecord, Stop, unpack
from dstack.model import Fingerprint, JobSpec, JobStatus, RunId, WorkflowName
from dstack.ports import Bucket


def open_job(
    bucket: Bucket,
    keys: ProjectKeys,
    record: RunRecord,
    *,
    spec: JobSpec,
    outcomes: Mapping[WorkflowName, Outcome],
) -> JobView:
    """A job without an outcome: what it waits for, or its attempt."""
    names = [dependency.workflow for dependency in spec.inputs]
    waits = [name for name in names if name not in outcomes or outcomes[name].status not in GOOD]
    if waits:
        reason = f"waits for {', '.join(waits)}"
        return JobView(workflow=spec.workflow, status=JobStatus.WAITING, reason=reason)
    print_ = fingerprint(ingredients(spec, {name: outcomes[name].digest for name in names}))
    generation = _wanted(bucket, keys, record.id, print_)
    if generation is None:
        return JobView(workflow=spec.workflow, status=JobStatus.QUEUED, fingerprint=print_)
    stop = _stop_asked(bucket, keys, record.id, spec.workflow)
    return _open(bucket, generation, spec.workflow, stopping=stop is not None)


def _wanted(bucket: Bucket, keys: ProjectKeys, run: RunId, print_: Fingerprint) -> JobKeys | None:
    """The highest generation of a job that the run waits for."""
    children = bucket.children(keys.job(print_, 1).job)
    numbers = sorted((int(name.rstrip("/")) for name in children if name.rstrip("/").isdigit()), reverse=True)
    for number in numbers:
        generation = keys.job(print_, number)
        if bucket.get(generation.want(run)) is not None:
            return generation
    return None


def _stop_asked(bucket: Bucket, keys: ProjectKeys, run: RunId, workflow: WorkflowName) -> Stop | None:
    for key in (keys.run(run).stop(workflow), keys.run(run).stop(None)):
        body = bucket.get(key)
        if body is not None:
            return unpack(Stop, key, body)
    return None


def _open(bucket: Bucket, generation: JobKeys, workflow: WorkflowName, *, stopping: bool) -> JobView:
    """A job without an outcome, by its last attempt."""
    print_ = generation.fingerprint
    claims = bucket.children(generation.claims)
    attempt = generation.attempt(int(claims[-1])) if claims else None
    body = bucket.get(attempt.claim) if attempt else None
    if attempt is None or body is None:
        return JobView(workflow=workflow, status=JobStatus.QUEUED, fingerprint=print_, generation=generation.generation)
    parts = {name.rstrip("/") for name in bucket.children(attempt.folder)}
    return JobView(
        workflow=workflow,
        status=attempt_status(parts, stopping=stopping),
        host=unpack(Claim, attempt.claim, body).host,
        attempt=attempt.number,
        fingerprint=print_,
        generation=generation.generation,
    )


def attempt_status(parts: set[str], *, stopping: bool) -> JobStatus:
    """What an attempt without an outcome is doing, by what stands in its folder of the bucket."""
    if "end" in parts:
        return JobStatus.QUEUED  # it ended, and the run has not drawn its conclusion or will try again
    if parts & {"data", "manifest"}:
        return JobStatus.UPLOADING
    if stopping:
        return JobStatus.STOPPING
    return JobStatus.RUNNING if parts & {"started", "log"} else JobStatus.PLACED
