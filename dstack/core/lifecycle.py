"""The states of jobs, attempts and runs: the order of states, and the state by the records in the bucket.

A job waits for its inputs; is queued for a slot; is placed on a host (its claim stands); is prepared there, runs, and
its artifacts are uploaded. Or the job is reused. From any state on the way a job can fail, be stopped (`stopping` while
a part of the job lives), be interrupted with its machine, or be lost: then the end is unknown for ever. An attempt
leads back to the queue when the attempt never started, or was stopped for another run. A coordinator joining later sees
the job running at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from dstack.model import ExitReport, JobStatus, RunStatus, Word

_S = JobStatus


class AttemptEnd(Word):
    """How an attempt can end: the `status` of its end record."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"
    """The fate of the attempt is unknown for ever."""
    INTERRUPTED = "interrupted"
    """The attempt ended with its machine, as a spot instance does."""
    VOID = "void"
    """The attempt never started."""
    SUPERSEDED = "superseded"
    """The attempt ran to its end, and another attempt had committed its result before."""


TRIED_ENDS = (AttemptEnd.FAILED, AttemptEnd.LOST, AttemptEnd.INTERRUPTED)
"""Ends counted as a try of the job; after these `retry` may permit another attempt."""

RAN_ENDS = (AttemptEnd.STOPPED, AttemptEnd.FAILED, AttemptEnd.LOST)
"""Ends without a result of an attempt with a job that may have run: a log and artifacts may be there."""

GOOD_STATES = frozenset({_S.SUCCEEDED, _S.REUSED})
"""States with a result."""
ENDED_STATES = GOOD_STATES | {_S.FAILED, _S.LOST, _S.STOPPED, _S.INTERRUPTED}
"""States of a job that no other state follows."""
RAN_STATES = ENDED_STATES - {_S.REUSED}
"""Ended states of a job after work in this very run."""
BEGUN_STATES = frozenset({_S.RUNNING, _S.UPLOADING, _S.STOPPING})
"""Open states of a job after its beginning."""
NOT_BEGUN_STATES = (_S.PREPARING, _S.PLACED, _S.QUEUED, _S.WAITING)
"""Open states of a job before its beginning, the nearest to the beginning first."""

_NOT_RUN = "not run: "

_ACTIVE = frozenset({_S.QUEUED, _S.PLACED, _S.PREPARING, _S.RUNNING, _S.UPLOADING, _S.STOPPING})

FOLLOWERS: Mapping[JobStatus, frozenset[JobStatus]] = {
    _S.WAITING: ENDED_STATES | (_ACTIVE - {_S.STOPPING}),
    _S.QUEUED: ENDED_STATES | _ACTIVE,
    _S.PLACED: ENDED_STATES | _ACTIVE,
    _S.PREPARING: ENDED_STATES | _ACTIVE,
    _S.RUNNING: ENDED_STATES | _ACTIVE,
    _S.UPLOADING: ENDED_STATES | _ACTIVE,
    _S.STOPPING: (ENDED_STATES - {_S.REUSED}) | (_ACTIVE - {_S.PLACED, _S.QUEUED}),
    **{status: frozenset() for status in ENDED_STATES},
}
"""The states that may follow each state of a job."""


def may_follow(before: JobStatus, after: JobStatus) -> bool:
    """Whether a job that was `before` may be `after`; an unchanged state may be shown again at any time."""
    return after is before or after in FOLLOWERS[before]


def not_run_reason(cause: str) -> str:
    """The recorded reason of a job that was stopped without a try, because of `cause`."""
    return f"{_NOT_RUN}{cause}"


def cause_of_not_run(reason: str) -> str | None:
    """The cause in a reason by `not_run_reason`; None for every other reason."""
    return reason.removeprefix(_NOT_RUN) if reason.startswith(_NOT_RUN) else None


def end_without_result(report: ExitReport) -> AttemptEnd:
    """The end of an attempt without committed artifacts, by the report of its host."""
    if report.stopped:
        return AttemptEnd.STOPPED
    return AttemptEnd.LOST if report.vanished else AttemptEnd.FAILED


def attempt_status(parts: Set[str], *, stopping: bool) -> JobStatus:
    """The state of a job without an outcome, by the names in the bucket folder of its last attempt.

    `stopping`: the run or the workflow was asked to stop.
    """
    if "end" in parts:
        # The attempt ended, and the run has not drawn its conclusion or will try again.
        return JobStatus.QUEUED
    if parts & {"data", "manifest"}:
        return JobStatus.UPLOADING
    if stopping:
        return JobStatus.STOPPING
    return JobStatus.RUNNING if parts & {"started", "log"} else JobStatus.PLACED


def overall_status(statuses: Sequence[JobStatus]) -> RunStatus:
    """The status of a run by the states of its jobs: RUNNING while a job is open, else the worst of the states."""
    found = set(statuses)
    if found - ENDED_STATES:
        return RunStatus.RUNNING
    if JobStatus.FAILED in found:
        return RunStatus.FAILED
    if JobStatus.LOST in found:
        return RunStatus.LOST
    return RunStatus.STOPPED if found - GOOD_STATES else RunStatus.SUCCEEDED
