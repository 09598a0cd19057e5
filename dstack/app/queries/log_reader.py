"""The logs of a run out of the bucket, as far as written, or until the run ends. Touches no host."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from dstack.app.queries.run_views import JobView
from dstack.app.queries.runs import attempt_of, job_of, run_view
from dstack.core.format.keys import AttemptKeys, ProjectKeys
from dstack.core.format.records import End, RunRecord, unpack
from dstack.core.lifecycle import ENDED_STATES
from dstack.errors import DamagedObjectError, NotFoundError
from dstack.ports import Bucket

SHORTEST_LOG_PAUSE_S = 0.1
LONGEST_LOG_PAUSE_S = 1.0
"""Seconds between two looks at the logs when nothing happens."""
JOB_STATES_PAUSE_S = 0.5
"""Seconds between two reads of the states of the jobs, more costly than a look at the logs."""

READ_AHEAD_AFTER = 16
"""Pieces read one after another before a list is asked for all further pieces."""

Piece = tuple[str, bytes]
"""Workflow and bytes of its log; no bytes: the end of this log."""


@dataclass(frozen=True, slots=True)
class LogLoss:
    """The part missing from the log of a job for good, in words, and the host without room to write."""

    workflow: str
    host: str
    what: str


@dataclass(slots=True)
class LogCursor:
    """The place of the reader in the log of a job, attempt after attempt when the job is tried again."""

    workflow: str
    attempt: AttemptKeys | None = None
    offset: int = 0
    done: bool = False


def read_logs(
    bucket: Bucket,
    keys: ProjectKeys,
    record: RunRecord,
    *,
    workflow: str | None = None,
    attempt: int | None = None,
    at_once: int = 1,
    losses: list[LogLoss] | None = None,
) -> Iterator[Piece]:
    """The logs written so far, job by job in the order of the plan, a piece at a time; missing parts go to `losses`.

    Of a long log `at_once` pieces are read at a time, and as many are in memory. `attempt` picks another attempt than
    the last. Raises NotFoundError when there is no such workflow or attempt, and, behind all readable pieces,
    DamagedObjectError when a log lacks a piece.
    """
    damages: list[DamagedObjectError] = []
    for job in _chosen_jobs(bucket, keys, record, workflow):
        keys_of_attempt = attempt_of(keys, job)
        if attempt is not None:
            keys_of_attempt = _numbered_attempt(bucket, keys_of_attempt, job, attempt)
        if keys_of_attempt is not None:
            reader = LogCursor(workflow=job.workflow, attempt=keys_of_attempt)
            yield from _read_all(bucket, reader, at_once)
            _note_loss(bucket, job.workflow, keys_of_attempt, losses)
            yield job.workflow, b""
            try:
                if job.status in ENDED_STATES:
                    _require_end(bucket, reader)
            except DamagedObjectError as error:
                damages.append(error)
    if damages:
        raise damages[0]


def follow_logs(
    bucket: Bucket,
    keys: ProjectKeys,
    record: RunRecord,
    *,
    workflow: str | None = None,
    pause: Callable[[float], None],
    at_once: int = 1,
    losses: list[LogLoss] | None = None,
) -> Iterator[Piece]:
    """The logs from their beginning, until every chosen job has its outcome and every piece was given; missing parts go
    to `losses`.

    `pause` waits for the given number of seconds. The next piece of a log is found by its offset: a look costs one read
    for each running job, at most ten times a second and at least once a second. The states of the jobs are read every
    JOB_STATES_PAUSE_S seconds.
    """
    chosen = _chosen_jobs(bucket, keys, record, workflow)
    readers = [LogCursor(workflow=job.workflow) for job in chosen]
    wait, since = SHORTEST_LOG_PAUSE_S, 0.0
    jobs: dict[str, JobView] = {str(job.workflow): job for job in chosen}
    while any(not reader.done for reader in readers):
        if since >= JOB_STATES_PAUSE_S:
            jobs, since = {str(job.workflow): job for job in run_view(bucket, keys, record).jobs}, 0.0
        moved = False
        for reader in readers:
            if not reader.done:
                for piece in _advance(bucket, keys, reader, job=jobs[reader.workflow], at_once=at_once):
                    moved = True
                    yield piece
                if reader.done:
                    _note_loss(bucket, reader.workflow, reader.attempt, losses)
        # A job that prints is followed closely; each look at a silent one costs a read for nothing.
        wait = SHORTEST_LOG_PAUSE_S if moved else min(LONGEST_LOG_PAUSE_S, wait * 1.5)
        since += wait
        if any(not reader.done for reader in readers):
            pause(wait)


def _note_loss(bucket: Bucket, workflow: str, attempt: AttemptKeys | None, losses: list[LogLoss] | None) -> None:
    """Add the part missing from the log, by the end record of the attempt."""
    body = bucket.get(attempt.end) if attempt is not None and losses is not None else None
    end = unpack(End, attempt.end, body) if attempt is not None and body is not None else None
    if end is not None and end.log_lost and losses is not None:
        losses.append(LogLoss(workflow, end.host, end.log_lost))


def _advance(bucket: Bucket, keys: ProjectKeys, reader: LogCursor, *, job: JobView, at_once: int) -> Iterator[Piece]:
    """The pieces to give now. The state was read before the log, so nothing comes behind the end."""
    current = attempt_of(keys, job)
    if current is not None and current != reader.attempt:
        # The job is tried again: the end of the former attempt's log comes before the new log.
        if reader.attempt is not None:
            yield from _read_all(bucket, reader, at_once)
        reader.attempt, reader.offset = current, 0
    if reader.attempt is not None:
        yield from _read_all(bucket, reader, at_once)
    if job.status in ENDED_STATES:
        reader.done = True
        yield reader.workflow, b""
        _require_end(bucket, reader)


def _require_end(bucket: Bucket, reader: LogCursor) -> None:
    """Raises DamagedObjectError when the log goes on beyond the reader's reach: a piece was cut, or is gone."""
    if reader.attempt is None:
        return
    key = reader.attempt.log(reader.offset)
    last = max(bucket.list(reader.attempt.logs), default="")
    if last >= key and not bucket.get(key):
        hint = f"the rest of the log begins behind it; dstack run {reader.workflow} --rerun makes another one"
        raise DamagedObjectError(key, f"{reader.workflow}: the log lacks {key}, or a part before it", hint=hint)


def _read_all(bucket: Bucket, reader: LogCursor, at_once: int) -> Iterator[Piece]:
    """All pieces behind the reader's place. Of a long log, listed pieces are read ahead."""
    pieces = 0
    while reader.attempt is not None:
        if at_once > 1 and pieces == READ_AHEAD_AFTER:
            listed = [key for key in bucket.list(reader.attempt.logs) if key >= reader.attempt.log(reader.offset)]
            yield from _read_ahead(bucket, reader, listed, at_once)
        piece = bucket.get(reader.attempt.log(reader.offset))
        if not piece:
            return
        pieces += 1
        reader.offset += len(piece)
        yield reader.workflow, piece


def _read_ahead(bucket: Bucket, reader: LogCursor, listed: Sequence[str], at_once: int) -> Iterator[Piece]:
    """The listed pieces as long as there is no gap, `at_once` of them on their way."""
    waiting: deque[tuple[str, Future[bytes | None]]] = deque()
    with ThreadPoolExecutor(at_once) as pool:
        try:
            # More rounds than pieces: the last `at_once` rounds only take the pieces on their way.
            for number in range(len(listed) + at_once):
                if number < len(listed):
                    waiting.append((listed[number], pool.submit(bucket.get, listed[number])))
                if number < at_once or not waiting:
                    continue
                key, future = waiting.popleft()
                piece = future.result()
                # A late list may lack a piece: from the gap on the caller reads by key.
                if not piece or reader.attempt is None or key != reader.attempt.log(reader.offset):
                    return
                reader.offset += len(piece)
                yield reader.workflow, piece
        finally:
            for _, future in waiting:
                future.cancel()


def _chosen_jobs(bucket: Bucket, keys: ProjectKeys, record: RunRecord, workflow: str | None) -> tuple[JobView, ...]:
    view = run_view(bucket, keys, record)
    return view.jobs if workflow is None else (job_of(view, workflow),)


def _numbered_attempt(bucket: Bucket, last: AttemptKeys | None, job: JobView, number: int) -> AttemptKeys:
    """Attempt `number` of the generation that `last` belongs to."""
    if last is not None and 1 <= number <= last.number:
        found = last.attempt(number)
        if bucket.get(found.claim) is not None:
            return found
    known = f"it has attempts 1 to {last.number}" if last is not None else "it has none yet"
    raise NotFoundError(f"{job.workflow} has no attempt {number}", hint=known)
