"""Why a job ran, will run, or need not run: the ingredients of its fingerprint against those of earlier jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from dstack.app.queries.open_runs import read_run_folder
from dstack.app.queries.run_views import JobView, RunView
from dstack.app.queries.runs import attempt_of, final_of, job_of, run_ids
from dstack.app.transfer.committed_manifest import require_manifest
from dstack.core.fingerprint import Ingredients, differences, fingerprint, ingredients
from dstack.core.format.keys import ProjectKeys
from dstack.core.format.records import Outcome, RunRecord, Why, unpack
from dstack.core.lifecycle import ENDED_STATES, GOOD_STATES, cause_of_not_run
from dstack.errors import BucketError, DamagedObjectError
from dstack.model import Fingerprint, JobSpec, JobStatus, RunId, RunName, WorkflowName
from dstack.ports import Bucket

EARLIER_RUNS_READ = 50
"""Earlier runs to read."""
EARLIER_JOBS_COMPARED = 10
"""Different earlier jobs of the workflow to compare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """`verdict` is one sentence; `differences` name the changes since run `against`."""

    verdict: str
    against: RunName | None = None
    differences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierJob:
    """A job of this workflow in an earlier run, with all its ingredients."""

    run: RunName
    fingerprint: str
    status: JobStatus
    parts: Ingredients


class Explainer:
    """Explains the jobs of a run. The records of earlier runs are read once for all jobs."""

    def __init__(self, bucket: Bucket, keys: ProjectKeys, record: RunRecord, view: RunView) -> None:
        self._past = RunHistory(bucket, keys, record)
        self._view = view

    def explain(self, workflow: WorkflowName) -> Explanation:
        """Why this job of the run ran or was reused.

        The earlier job with the fewest differences counts, of several the latest. Raises NotFoundError when the run has
        no such workflow, and DamagedObjectError when a succeeded job has lost its artifacts.
        """
        job = job_of(self._view, workflow)
        attempt = attempt_of(self._past.keys, job)
        if job.status in GOOD_STATES and attempt is not None:
            generation = self._past.keys.job(Fingerprint(job.fingerprint), job.generation)
            try:
                require_manifest(self._past.bucket, generation, attempt.number)
            except DamagedObjectError as error:
                hint = f"make it anew: dstack run {workflow} --rerun"
                raise DamagedObjectError(error.key, f"{workflow}: {error}", hint=hint) from None
        return _explain(self._past, self._view, workflow)


def _explain(past: RunHistory, view: RunView, workflow: WorkflowName) -> Explanation:
    bucket, keys = past.bucket, past.keys
    job = job_of(view, workflow)
    if job.reused_from:
        return Explanation(verdict=f"reused from {job.reused_from}, because nothing differs", against=job.reused_from)
    if job.status in ENDED_STATES and not job.began:
        reason = cause_of_not_run(job.reason) or job.reason
        return Explanation(verdict=f"did not run ({job.status}{': ' if reason else ''}{reason})")
    verb = _verb(job)
    if not job.fingerprint:
        return Explanation(verdict=f"{job.status}: {job.reason or 'it is not known yet what it will run with'}")
    reason = _reopened(bucket, keys, job)
    if reason:
        return Explanation(verdict=f"{verb} again: {reason}")
    parts = _parts(past.record, workflow, past.outcomes)
    if parts is None:
        return Explanation(
            verdict=f"{job.status}: {job.reason}" if job.reason else "its inputs have no outcome any more"
        )
    candidates = list(_earlier(past, workflow))
    # The same fingerprint and yet not reused: the earlier job failed, or ran at the same time.
    same = next((found for found in candidates if found.fingerprint == job.fingerprint), None)
    if same is not None and same.status not in GOOD_STATES:
        verdict = f"{verb}, because {same.run} tried the same and {same.status}; only success is reused"
        return Explanation(verdict=verdict, against=same.run)
    if same is not None:
        verdict = f"{verb} at the same time as {same.run}, or before its result was there; nothing differs"
        if not job.began:
            verdict = f"{job.status}: nothing differs from {same.run}"
        return Explanation(verdict=verdict, against=same.run)
    return _nearest(bucket, keys, parts, candidates=candidates, verb=verb)


def _verb(job: JobView) -> str:
    """`ran`, `runs`, `queued: will run`: no more than known of a job not kept from running."""
    if job.status is JobStatus.LOST:
        return "may have run"
    if job.status in ENDED_STATES:
        return "ran"
    return "runs" if job.began else f"{job.status}: will run"


def _nearest(
    bucket: Bucket, keys: ProjectKeys, parts: Ingredients, *, candidates: list[EarlierJob], verb: str
) -> Explanation:
    """The comparison with the most similar earlier job."""
    # Lists of files can be large: they are read only where the code differs at all.
    changed = any(found.parts.code != parts.code for found in candidates)
    files = _files(bucket, keys, parts.code) if changed else None
    known = {parts.code: files}
    best: tuple[EarlierJob, tuple[str, ...]] | None = None
    for found in candidates:
        if found.parts.code not in known:
            known[found.parts.code] = _files(bucket, keys, found.parts.code)
        old_files = known[found.parts.code]
        lines = differences(found.parts, parts, old_files=old_files, new_files=files)
        if best is None or len(lines) < len(best[1]):
            best = (found, lines)
    if best is None:
        return Explanation(verdict=f"{verb}, because there is no earlier job of this workflow")
    verdict = f"{verb}, because this differs from {best[0].run}:"
    return Explanation(verdict=verdict, against=best[0].run, differences=best[1])


def _reopened(bucket: Bucket, keys: ProjectKeys, job: JobView) -> str:
    """The reason of a generation above the first; "" for the first."""
    if job.generation < 2:
        return ""
    key = keys.job(Fingerprint(job.fingerprint), job.generation).why
    body = bucket.get(key)
    return unpack(Why, key, body).reason if body is not None else ""


class RunHistory:
    """Earlier runs: one list, one read for each final run, and another for each requested record."""

    def __init__(self, bucket: Bucket, keys: ProjectKeys, record: RunRecord) -> None:
        self.bucket = bucket
        self.keys = keys
        self.record = record
        self._outcomes: dict[RunId, Mapping[WorkflowName, Outcome]] = {}
        self._records: dict[RunId, RunRecord | None] = {record.id: record}

    @cached_property
    def runs(self) -> Sequence[RunId]:
        """The newest before this one."""
        return run_ids(self.bucket, self.keys, EARLIER_RUNS_READ, after=self.record.id)

    @property
    def outcomes(self) -> Mapping[WorkflowName, Outcome]:
        return self.outcomes_of(self.record.id)

    def outcomes_of(self, run: RunId) -> Mapping[WorkflowName, Outcome]:
        """The outcomes of a run so far."""
        if run not in self._outcomes:
            final = final_of(self.bucket, self.keys, run)
            if final is not None:
                self._outcomes[run] = {outcome.workflow: outcome for outcome in final.jobs}
            else:
                record = self.record_of(run)
                self._outcomes[run] = read_run_folder(self.bucket, self.keys, record).outcomes if record else {}
        return self._outcomes[run]

    def record_of(self, run: RunId) -> RunRecord | None:
        if run not in self._records:
            key = self.keys.run(run).record
            body = self.bucket.get(key)
            self._records[run] = unpack(RunRecord, key, body) if body is not None else None
        return self._records[run]


def _earlier(past: RunHistory, workflow: WorkflowName) -> Iterator[EarlierJob]:
    """Earlier jobs of the workflow with different fingerprints, newest first; without jobs that have none."""
    fingerprints: set[str] = set()
    for run in past.runs:
        try:
            outcomes = past.outcomes_of(run)
            outcome = outcomes.get(workflow)
            if outcome is None or not outcome.fingerprint or outcome.fingerprint in fingerprints:
                continue
            other = past.record_of(run)
        except DamagedObjectError:
            continue  # one damaged run is not compared; `dstack fsck` tells it
        parts = _parts(other, workflow, outcomes) if other is not None else None
        if other is None or parts is None:
            continue
        fingerprints.add(outcome.fingerprint)
        name = outcome.reused_from or other.name
        yield EarlierJob(run=name, fingerprint=outcome.fingerprint, status=outcome.status, parts=parts)
        if len(fingerprints) == EARLIER_JOBS_COMPARED:
            return


def _parts(record: RunRecord, workflow: WorkflowName, outcomes: Mapping[WorkflowName, Outcome]) -> Ingredients | None:
    """The ingredients of the job of this workflow in the run; None while an input has no content."""
    spec: JobSpec | None = next((spec for spec in record.plan.jobs if spec.workflow == workflow), None)
    if spec is None:
        return None
    digests = {}
    for dependency in spec.inputs:
        outcome = outcomes.get(dependency.workflow)
        if outcome is None or outcome.status not in GOOD_STATES:
            return None
        digests[dependency.workflow] = outcome.digest
    parts = ingredients(spec, {str(name): digest for name, digest in digests.items()})
    recorded = outcomes.get(workflow)
    # A record of an earlier version may hash other things: then there is nothing to compare.
    return None if recorded and recorded.fingerprint and recorded.fingerprint != fingerprint(parts) else parts


def _files(bucket: Bucket, keys: ProjectKeys, digest: str) -> Mapping[str, str] | None:
    """Path -> "mode blob" of the files behind a code digest; None when the list is not there."""
    key = keys.files(digest)
    body = bucket.get(key)
    if body is None:
        return None
    try:
        files = json.loads(body)
    except (ValueError, RecursionError):
        files = None
    if not isinstance(files, dict) or not all(isinstance(value, str) for value in files.values()):
        raise BucketError(f"{key} is not a list of files", hint="remove the object and run again")
    return files
