"""Runs without a summary: the states of their jobs, by the records in the bucket. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dstack.app.protocol.bucket_performer import read_only
from dstack.app.protocol.jobs import last_attempt, owner_of
from dstack.app.queries.coordinators import LATE_BEAT_S, Presence
from dstack.app.queries.run_views import JobView, RunView, time_of_day, view_of, waits_text
from dstack.core.fingerprint import fingerprint, ingredients
from dstack.core.format.key_parser import numbers
from dstack.core.format.keys import ALL_WORKFLOWS, AttemptKeys, JobKeys, ProjectKeys
from dstack.core.format.records import (
    Claim,
    Coordinator,
    End,
    Outcome,
    RunRecord,
    Started,
    Stop,
    at_machine,
    unpack,
)
from dstack.core.lifecycle import GOOD_STATES, AttemptEnd, attempt_status, overall_status
from dstack.model import Fingerprint, JobSpec, JobStatus, RunId, WorkflowName
from dstack.ports import Bucket

IN_QUEUE_TEXT = "waits for a slot; `dstack queue` says who has them"
_ENDINGS: Mapping[str, str] = {
    AttemptEnd.LOST: "was lost",
    AttemptEnd.STOPPED: "was stopped",
    AttemptEnd.VOID: "never started",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """The folder of a run: one list, and one read for each outcome and stop request."""

    outcomes: Mapping[WorkflowName, Outcome]
    stops: Mapping[str, Stop]
    coordinators: tuple[str, ...]

    def stop(self, workflow: WorkflowName) -> Stop | None:
        return self.stops.get(workflow) or self.stops.get(ALL_WORKFLOWS)


def read_run_folder(bucket: Bucket, keys: ProjectKeys, record: RunRecord) -> RunFolder:
    """The folder of the run; outcomes of workflows outside its plan are left out."""
    run = keys.run(record.id)
    there = frozenset(bucket.list(run.folder))
    outcomes, stops = {}, {}
    for spec in record.plan.jobs:
        key = run.job(spec.workflow)
        body = bucket.get(key) if key in there else None
        if body is not None:
            outcomes[spec.workflow] = unpack(Outcome, key, body)
    for name in (None, *(spec.workflow for spec in record.plan.jobs)):
        key = run.stop(name)
        body = bucket.get(key) if key in there else None
        if body is not None:
            stops[name or ALL_WORKFLOWS] = unpack(Stop, key, body)
    # Names alone: `Presence` reads the records, and only those of coordinators with a heartbeat.
    names = (key.removeprefix(run.coordinators) for key in sorted(there) if key.startswith(run.coordinators))
    return RunFolder(outcomes=outcomes, stops=stops, coordinators=tuple(names))


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenJob:
    """A job without an outcome, and the owner of its attempt while the attempt lasts."""

    view: JobView
    owner: Coordinator | None = None
    nonce: str = ""


def open_run_view(bucket: Bucket, keys: ProjectKeys, record: RunRecord, look: Presence | None) -> RunView:
    """The view of a run put together from its records so far.

    Without `look`, neither the coordinators nor the start times of the jobs are read: for callers in a loop.
    """
    found = read_run_folder(bucket, keys, record)
    jobs, owners, nonces = [], [], {}
    for spec in record.plan.jobs:
        if spec.workflow in found.outcomes:
            jobs.append(view_of(found.outcomes[spec.workflow]))
            continue
        opened = open_job_view(bucket, keys, record, spec=spec, found=found, look=look)
        jobs.append(opened.view)
        if opened.owner is not None:
            owners.append(opened.owner)
            nonces[spec.workflow] = opened.nonce
    caretakers = None
    if look is not None:
        # Only now, since each of the following costs reads: most runs need none of it.
        if any(job.ownerless for job in jobs):
            sightings = look.sightings(keys.run(record.id), found.coordinators)
            jobs = [replace(job, sighting=sightings.get(nonces.get(job.workflow, ""), "")) for job in jobs]
        if any(job.reason == IN_QUEUE_TEXT for job in jobs):
            waits = {IN_QUEUE_TEXT: look.waits(keys.run(record.id), found.coordinators)}
            jobs = [replace(job, reason=waits.get(job.reason, {}).get(job.workflow, job.reason)) for job in jobs]
        caretakers = look.caretakers(keys.run(record.id), found.coordinators, owners, record.submitted)
    return RunView(
        id=record.id,
        run=record.name,
        workflow=record.workflow,
        status=overall_status([job.status for job in jobs]),
        user=record.user,
        machine=record.machine,
        submitted=time_of_day(record.submitted),
        jobs=tuple(jobs),
        caretakers=caretakers,
    )


def open_job_view(
    bucket: Bucket, keys: ProjectKeys, record: RunRecord, *, spec: JobSpec, found: RunFolder, look: Presence | None
) -> OpenJob:
    """A job without an outcome: its reason to wait, or its attempt."""
    names = [dependency.workflow for dependency in spec.inputs]
    waits = [name for name in names if name not in found.outcomes or found.outcomes[name].status not in GOOD_STATES]
    if waits:
        view = JobView(workflow=spec.workflow, status=JobStatus.WAITING, reason=waits_text(waits))
        return OpenJob(view=view)
    print_ = fingerprint(ingredients(spec, {name: found.outcomes[name].digest for name in names}))
    generation = _wanted_generation(bucket, keys, record.id, print_)
    if generation is None:
        reason = "no coordinator has looked at it yet"
        view = JobView(workflow=spec.workflow, status=JobStatus.QUEUED, fingerprint=print_, reason=reason)
        return OpenJob(view=view)
    return _attempt_view(bucket, generation, record, workflow=spec.workflow, stop=found.stop(spec.workflow), look=look)


def _wanted_generation(bucket: Bucket, keys: ProjectKeys, run: RunId, print_: Fingerprint) -> JobKeys | None:
    """The highest generation with a want of the run."""
    children = bucket.children(keys.job(print_, 1).job)
    # A run goes from one generation to a higher one, and never back.
    for number in reversed(numbers(children)):
        generation = keys.job(print_, number)
        if bucket.get(generation.want(run)) is not None:
            return generation
    return None


def _attempt_view(
    bucket: Bucket,
    generation: JobKeys,
    record: RunRecord,
    *,
    workflow: WorkflowName,
    stop: Stop | None,
    look: Presence | None,
) -> OpenJob:
    """A job without an outcome, by its last attempt."""
    view = JobView(
        workflow=workflow,
        status=JobStatus.QUEUED,
        fingerprint=generation.fingerprint,
        generation=generation.generation,
        reason=IN_QUEUE_TEXT,
    )
    attempt = read_only(last_attempt(generation), bucket)
    body = bucket.get(attempt.claim) if attempt else None
    if attempt is None or body is None:
        return OpenJob(view=view)
    claim = unpack(Claim, attempt.claim, body)
    parts = {name.rstrip("/") for name in bucket.children(attempt.folder)}
    view = replace(
        view, status=attempt_status(parts, stopping=stop is not None), host=claim.host, attempt=attempt.number
    )
    if view.status is JobStatus.QUEUED:
        return OpenJob(view=replace(view, reason=_end_text(bucket, attempt)))
    owner = claim.coordinator
    # The listed names tell whether there was an adoption; most attempts cost no further read.
    if "owner" in parts:
        owner, _ = read_only(owner_of(attempt, claim), bucket)
    reason = stop.reason if stop is not None else ""
    if not reason and claim.run != record.id:
        reason = f"joins {claim.run_name} of {at_machine(owner.user, owner.machine)}"
    view = replace(view, reason=reason, owner=at_machine(owner.user, owner.machine))
    if look is not None:
        since = _started_at(bucket, attempt) if "started" in parts else 0.0
        view = _with_signs(replace(view, started=since), look, owner, claim)
    return OpenJob(view=view, owner=owner, nonce=claim.nonce)


def _with_signs(view: JobView, look: Presence, owner: Coordinator, claim: Claim) -> JobView:
    """The view with all signs of the attempt in the heartbeat of its owner."""
    sign = look.sign(owner)
    return replace(
        view,
        ownerless=not sign.alive,
        account="" if sign.alive else claim.account,
        unreachable=sign.unreachable.get(claim.nonce, 0.0),
        unheard=sign.last_beat if 0 < sign.last_beat < look.now - LATE_BEAT_S else 0.0,
    )


def _started_at(bucket: Bucket, attempt: AttemptKeys) -> float:
    """The start time of the job, by its host's clock; 0.0 when not known."""
    body = bucket.get(attempt.started)
    return 0.0 if body is None else time_of_day(unpack(Started, attempt.started, body).at)


def _end_text(bucket: Bucket, attempt: AttemptKeys) -> str:
    """Why the job waits again although its last attempt has ended."""
    body = bucket.get(attempt.end)
    end = unpack(End, attempt.end, body) if body is not None else None
    if end is None:
        return ""
    why = f": {end.reason}" if end.reason else ""
    return f"attempt {attempt.number} {_ENDINGS.get(end.status, end.status)}{why}"
