"""The logs of a run out of the bucket, as far as they are there, or until the run ends. Touches no host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dstack.app.overview import attempt_of, job_of, run_view
from dstack.app.views import JobView
from dstack.core.keys import AttemptKeys, ProjectKeys
from dstack.core.lifecycle import ENDED
from dstack.core.records import RunRecord
from dstack.errors import NotFoundError
from dstack.ports import Bucket

SHORTEST = 0.1
LONGEST = 1.0
"""Seconds between two looks at the logs when nothing happens."""
STATE = 0.5
"""Seconds between two looks at what the jobs do, which cost more reads."""

Piece = tuple[str, bytes]
"""Workflow and bytes of its log; no bytes: that log is complete."""


@dataclass(slots=True)
class Reader:
    """Reads the log of one job, attempt after attempt when it is tried again."""

    workflow: str
    attempt: AttemptKeys | None = None
    offset: int = 0
    done: bool = False


def read_logs(
    bucket: Bucket, keys: ProjectKeys, record: RunRecord, *, workflow: str | None = None, attempt: int | None = None
) -> Iterator[Piece]:
    """The logs that are there, job by job in the order of the plan, a piece at a time.

    `attempt` picks another one than the last; raises NotFoundError when there is no such workflow or attempt.
    """
    for job in _chosen(bucket, keys, record, workflow):
        keys_of_attempt = attempt_of(keys, job)
        if attempt is not None:
            keys_of_attempt = _numbered(bucket, keys_of_attempt, job, attempt)
        if keys_of_attempt is not None:
            yield from _drain(bucket, Reader(workflow=job.workflow, attempt=keys_of_attempt))
            yield job.workflow, b""


def follow_logs(
    bucket: Bucket,
    keys: ProjectKeys,
    record: RunRecord,
    *,
    workflow: str | None = None,
    pause: Callable[[float], None],
) -> Iterator[Piece]:
    """The logs that are there and all that comes, until every chosen job has its outcome and all was given.

    `pause` waits for so many seconds. The next piece of a log is found by its offset: a look costs one read for each
    running job, at most ten times a second and at least once a second; every STATE seconds the jobs are looked at too.
    """
    chosen = _chosen(bucket, keys, record, workflow)
    readers = [Reader(workflow=job.workflow) for job in chosen]
    wait, since = SHORTEST, 0.0
    jobs: dict[str, JobView] = {str(job.workflow): job for job in chosen}
    while any(not reader.done for reader in readers):
        if since >= STATE:
            jobs, since = {str(job.workflow): job for job in run_view(bucket, keys, record).jobs}, 0.0
        moved = False
        for reader in readers:
            if not reader.done:
                for piece in _advance(bucket, keys, reader, job=jobs[reader.workflow]):
                    moved = True
                    yield piece
        wait = SHORTEST if moved else min(LONGEST, wait * 1.5)
        since += wait
        if any(not reader.done for reader in readers):
            pause(wait)


def _advance(bucket: Bucket, keys: ProjectKeys, reader: Reader, *, job: JobView) -> Iterator[Piece]:
    """What the reader can give now. The state was read before the log, so that nothing comes behind the end."""
    current = attempt_of(keys, job)
    if current is not None and current != reader.attempt:
        if reader.attempt is not None:
            yield from _drain(bucket, reader)
        reader.attempt, reader.offset = current, 0
    if reader.attempt is not None:
        yield from _drain(bucket, reader)
    if job.status in ENDED:
        reader.done = True
        yield reader.workflow, b""


def _drain(bucket: Bucket, reader: Reader) -> Iterator[Piece]:
    while reader.attempt is not None:
        piece = bucket.get(reader.attempt.log(reader.offset))
        if not piece:
            return
        reader.offset += len(piece)
        yield reader.workflow, piece


def _chosen(bucket: Bucket, keys: ProjectKeys, record: RunRecord, workflow: str | None) -> tuple[JobView, ...]:
    view = run_view(bucket, keys, record)
    return view.jobs if workflow is None else (job_of(view, workflow),)


def _numbered(bucket: Bucket, last: AttemptKeys | None, job: JobView, number: int) -> AttemptKeys:
    """Attempt `number` of the generation that `last` belongs to."""
    if last is not None and 1 <= number <= last.number:
        found = AttemptKeys(last.generation, number)
        if bucket.get(found.claim) is not None:
            return found
    known = f"it has attempts 1 to {last.number}" if last is not None else "it has none yet"
    raise NotFoundError(f"{job.workflow} has no attempt {number}", hint=known)
