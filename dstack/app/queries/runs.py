"""Runs out of the bucket: for `ps` and `show`, and to find a job's log and artifacts. Reads only, touches no host.

A final run costs one read. Any other run is put together from its record, the outcomes so far, and the claims of the
jobs without an outcome.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

from dstack.app.queries.run_views import JobView, RunView, time_of_day, view_of
from dstack.core.format.identifiers import inverted, is_run_id
from dstack.core.format.keys import AttemptKeys, ProjectKeys
from dstack.core.format.records import Final, RunRecord, unpack
from dstack.core.lifecycle import ENDED_STATES
from dstack.errors import BucketError, NotFoundError
from dstack.model import Fingerprint, JobStatus, RunId

if TYPE_CHECKING:
    from collections.abc import Callable

    from dstack.app.queries.coordinators import Presence
    from dstack.ports import Bucket

    PresenceSource = Callable[[], Presence]
    """Gives the one look for all runs, made for the first run without a summary."""
    RunFaults = dict[RunId, BucketError]
    """The runs with senseless records, and the first error of each."""


def run_ids(bucket: Bucket, keys: ProjectKeys, limit: int | None = None, *, after: RunId | None = None) -> list[RunId]:
    """The ids of the newest `limit` runs (None: of all) older than run `after`, newest first; one list."""
    return _ids(bucket.children(keys.runs, limit=limit, after=f"{after}/" if after else ""))


def own_run_ids(
    bucket: Bucket, keys: ProjectKeys, user: str, machine: str, limit: int | None = None, *, until: float | None = None
) -> list[RunId]:
    """The ids of the newest `limit` runs of `user` on `machine`, newest first; one list.

    With `until` none made after this time, in seconds since the epoch by the clock of the machine.
    """
    # Ids sort the newest first, so the runs that are later than `until` come before this text.
    after = "" if until is None else inverted(int(until * 1000))
    return _ids(bucket.children(keys.runs_of(user, machine), limit=limit, after=after))


def _ids(names: Sequence[str]) -> list[RunId]:
    return [RunId(name) for name in (each.rstrip("/") for each in names) if is_run_id(name)]


def views_of(
    bucket: Bucket,
    keys: ProjectKeys,
    runs: Sequence[RunId],
    *,
    look: PresenceSource | None = None,
    at_once: int = 1,
    faults: RunFaults | None = None,
) -> Iterator[RunView]:
    """These runs in this order: one read for each final run, `at_once` reads at a time.

    A run without a record, not there yet, is left out. Senseless records raise BucketError; where `faults` is given,
    the error goes there and all other runs are shown.
    """
    for run, final in zip(runs, _finals(bucket, keys, runs, at_once), strict=True):
        try:
            view = _view(bucket, keys, run, final, look)
        except BucketError as error:
            if faults is None:
                raise
            # A bucket that does not answer raises here, and is no fault of one run.
            bucket.get(keys.run(run).record)
            faults[run] = error
            continue
        if view is not None:
            yield view


def _view(
    bucket: Bucket, keys: ProjectKeys, run: RunId, final: bytes | None, look: PresenceSource | None
) -> RunView | None:
    """A run with the summary body `final`; None while its record is not there."""
    if final is not None:
        return with_lost_attempts(bucket, keys, _final_view(run, unpack(Final, keys.run(run).final, final)))
    body = bucket.get(keys.run(run).record)
    return None if body is None else _open_view(bucket, keys, unpack(RunRecord, keys.run(run).record, body), look)


def _finals(bucket: Bucket, keys: ProjectKeys, runs: Sequence[RunId], at_once: int) -> Iterator[bytes | None]:
    """The bodies of the summaries of these runs, in their order."""
    if at_once == 1 or len(runs) < 2:
        yield from (bucket.get(keys.run(run).final) for run in runs)
        return
    # Imported here on purpose: a folder answers faster than this is imported.
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(at_once)
    try:
        yield from pool.map(lambda run: bucket.get(keys.run(run).final), runs)
    finally:
        # Without a wait: a caller that stops early needs none of the answers on their way.
        pool.shutdown(wait=False, cancel_futures=True)


def run_view(bucket: Bucket, keys: ProjectKeys, record: RunRecord, *, look: PresenceSource | None = None) -> RunView:
    """How the run stands now, as far as the bucket knows."""
    final = final_of(bucket, keys, record.id)
    if final is not None:
        return with_lost_attempts(bucket, keys, _final_view(record.id, final))
    return _open_view(bucket, keys, record, look)


def job_of(view: RunView, workflow: str) -> JobView:
    """The job of this workflow; raises NotFoundError with the run's workflows."""
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


def with_lost_attempts(bucket: Bucket, keys: ProjectKeys, view: RunView) -> RunView:
    """The run with the lost attempts of its jobs that may live; reads only where there were any."""
    if not any(job.attempt > 1 or job.status is JobStatus.LOST for job in view.jobs):
        return view
    # Imported here on purpose: runs without lost attempts, which are most, need none of it.
    from dstack.app.queries.lost_attempts import lost_attempts

    jobs = []
    for job in view.jobs:
        last = attempt_of(keys, job) if job.status is not JobStatus.REUSED else None
        last_ended = job.status in ENDED_STATES and job.status is not JobStatus.LOST
        lost = lost_attempts(bucket, last, last_ended=last_ended) if last is not None else ()
        jobs.append(replace(job, lost=lost))
    return replace(view, jobs=tuple(jobs))


def final_of(bucket: Bucket, keys: ProjectKeys, run: RunId) -> Final | None:
    """The summary of a run; None before its end."""
    key = keys.run(run).final
    body = bucket.get(key)
    return None if body is None else unpack(Final, key, body)


def _final_view(run: RunId, final: Final) -> RunView:
    return RunView(
        id=run,
        run=final.run,
        workflow=final.workflow,
        status=final.status,
        user=final.user,
        machine=final.machine,
        submitted=time_of_day(final.submitted),
        jobs=tuple(view_of(outcome) for outcome in final.jobs),
        ended=time_of_day(final.ended),
    )


def _open_view(bucket: Bucket, keys: ProjectKeys, record: RunRecord, look: PresenceSource | None) -> RunView:
    # Imported here on purpose: `ps` over runs that are final needs no fingerprints.
    from dstack.app.queries.open_runs import open_run_view

    view = open_run_view(bucket, keys, record, look() if look is not None else None)
    return view if look is None else with_lost_attempts(bucket, keys, view)
