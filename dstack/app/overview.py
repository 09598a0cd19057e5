"""What the bucket says of runs: `ps`, `show`, and where a job's log and artifacts are. Reads only, touches no host.

A run that is final costs one read. One that is not is put together from its record, the outcomes so far, and the
claims of the jobs that have none yet.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING

from dstack.app.views import JobView, RunView, overall_status
from dstack.core.keys import AttemptKeys, ProjectKeys
from dstack.core.records import Final, Outcome, RunRecord, unpack
from dstack.errors import BucketError, NotFoundError
from dstack.model import Fingerprint, RunId, RunName, WorkflowName

if TYPE_CHECKING:
    from dstack.ports import Bucket

_RUN_ID = re.compile(r"[0-9]{13}-[A-Za-z0-9]{1,32}")
_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def run_ids(bucket: Bucket, keys: ProjectKeys, limit: int | None = None) -> list[RunId]:
    """The ids of the newest `limit` runs (None: of all), newest first; one list."""
    names = (name.rstrip("/") for name in bucket.children(keys.runs, limit=limit))
    return [RunId(name) for name in names if _RUN_ID.fullmatch(name)]


def list_runs(bucket: Bucket, keys: ProjectKeys, limit: int | None = None) -> Iterator[RunView]:
    """The newest `limit` runs, newest first: one list, and one read for each run that is final.

    A run whose record is not there yet (it is being submitted) is left out.
    """
    for run in run_ids(bucket, keys, limit):
        final = _final(bucket, keys, run)
        if final is not None:
            yield _settled(run, final)
            continue
        body = bucket.get(keys.run(run).record)
        if body is not None:
            yield _unsettled(bucket, keys, unpack(RunRecord, keys.run(run).record, body))


def find_run(bucket: Bucket, keys: ProjectKeys, name_or_id: str) -> RunRecord:
    """The run of that name or id; raises NotFoundError with the nearest names."""
    run = name_or_id if _RUN_ID.fullmatch(name_or_id) else _id_of(bucket, keys, name_or_id)
    body = bucket.get(keys.run(RunId(run)).record) if run else None
    if body is None:
        raise _no_run(bucket, keys, name_or_id)
    key = keys.run(RunId(str(run))).record
    record = unpack(RunRecord, key, body)
    # Names become folders of `artifacts pull`: whoever can write to the bucket must not choose where that is.
    for name in (record.name, *(spec.workflow for spec in record.plan.jobs)):
        if not _RUN_NAME.fullmatch(name):
            raise BucketError(f"{key} holds a name that no run or workflow can have: {name!a}")
    return record


def run_view(bucket: Bucket, keys: ProjectKeys, record: RunRecord) -> RunView:
    """How the run stands now, as far as the bucket knows."""
    final = _final(bucket, keys, record.id)
    return _settled(record.id, final) if final is not None else _unsettled(bucket, keys, record)


def job_of(view: RunView, workflow: str) -> JobView:
    """The job of that workflow; raises NotFoundError with the workflows that the run has."""
    for job in view.jobs:
        if job.workflow == workflow:
            return job
    names = [job.workflow for job in view.jobs]
    near = get_close_matches(workflow, names, n=1)
    known = f"it has {', '.join(names)}"
    hint = f"did you mean {near[0]}? {known}" if near else known
    raise NotFoundError(f"run {view.run} has no workflow {workflow!r}", hint=hint)


def attempt_of(keys: ProjectKeys, job: JobView) -> AttemptKeys | None:
    """Where log and artifacts of the job are; None while there is no attempt."""
    if not (job.fingerprint and job.generation and job.attempt):
        return None
    return keys.job(Fingerprint(job.fingerprint), job.generation).attempt(job.attempt)


def _final(bucket: Bucket, keys: ProjectKeys, run: RunId) -> Final | None:
    key = keys.run(run).final
    body = bucket.get(key)
    return None if body is None else unpack(Final, key, body)


def _id_of(bucket: Bucket, keys: ProjectKeys, name: str) -> str | None:
    if not _RUN_NAME.fullmatch(name):
        return None
    key = keys.name(RunName(name))
    body = bucket.get(key)
    if body is None:
        return None
    try:
        run = json.loads(body)["run"]
    except (ValueError, TypeError, KeyError):
        run = None
    if not isinstance(run, str) or not _RUN_ID.fullmatch(run):
        raise BucketError(f"{key} does not hold the id of a run", hint="remove the object and run again")
    return run


def _no_run(bucket: Bucket, keys: ProjectKeys, name: str) -> NotFoundError:
    known = [child.rstrip("/") for child in bucket.children(f"{keys.root}names/", limit=10_000)]
    near = get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "`dstack ps` lists the runs"
    return NotFoundError(f"there is no run {name!r}", hint=hint)


def _settled(run: RunId, final: Final) -> RunView:
    return RunView(
        id=run,
        run=final.run,
        workflow=final.workflow,
        status=final.status,
        user=final.user,
        submitted=final.submitted,
        jobs=tuple(told(outcome) for outcome in final.jobs),
        ended=final.ended,
    )


def _unsettled(bucket: Bucket, keys: ProjectKeys, record: RunRecord) -> RunView:
    # Imported here on purpose: `ps` over runs that are final needs no fingerprints.
    from dstack.app.unsettled import open_job

    outcomes = outcomes_of(bucket, keys, record)
    jobs = tuple(
        told(outcomes[spec.workflow])
        if spec.workflow in outcomes
        else open_job(bucket, keys, record, spec=spec, outcomes=outcomes)
        for spec in record.plan.jobs
    )
    return RunView(
        id=record.id,
        run=record.name,
        workflow=record.workflow,
        status=overall_status([job.status for job in jobs]),
        user=record.user,
        submitted=record.submitted,
        jobs=jobs,
    )


def outcomes_of(bucket: Bucket, keys: ProjectKeys, record: RunRecord) -> dict[WorkflowName, Outcome]:
    """The outcomes that are recorded so far."""
    found = {}
    for spec in record.plan.jobs:
        key = keys.run(record.id).job(spec.workflow)
        body = bucket.get(key)
        if body is not None:
            found[spec.workflow] = unpack(Outcome, key, body)
    return found


def told(outcome: Outcome) -> JobView:
    return JobView(
        workflow=outcome.workflow,
        status=outcome.status,
        host=outcome.host,
        attempt=outcome.attempt,
        fingerprint=outcome.fingerprint,
        reused_from=outcome.reused_from,
        reason=outcome.reason,
        generation=outcome.generation,
        started=outcome.started,
        ended=outcome.ended,
    )
