"""The states of a job, and which may follow which. Everything about them that is a decision stands in this file.

A job waits for its inputs; is queued for a slot; is placed on a host (its claim stands); is prepared there, runs, and
its artifacts are uploaded. It may be reused instead. From any state on the way it can fail, be stopped (`stopping`
while something of it lives), be interrupted with its machine, or be lost: then nobody can know. An attempt that never
started, or that was stopped for another run, leads back to the queue; a coordinator that joins sees it running at once.
"""

from __future__ import annotations

from collections.abc import Mapping

from dstack.model import JobStatus

_S = JobStatus

GOOD = frozenset({_S.SUCCEEDED, _S.REUSED})
"""States with a result."""
ENDED = GOOD | {_S.FAILED, _S.LOST, _S.STOPPED, _S.INTERRUPTED}
"""States that nothing follows."""

_ACTIVE = frozenset({_S.QUEUED, _S.PLACED, _S.PREPARING, _S.RUNNING, _S.UPLOADING, _S.STOPPING})

FOLLOWERS: Mapping[JobStatus, frozenset[JobStatus]] = {
    _S.WAITING: ENDED | (_ACTIVE - {_S.STOPPING}),
    _S.QUEUED: ENDED | _ACTIVE,
    _S.PLACED: ENDED | _ACTIVE,
    _S.PREPARING: ENDED | _ACTIVE,
    _S.RUNNING: ENDED | _ACTIVE,
    _S.UPLOADING: ENDED | _ACTIVE,
    _S.STOPPING: (ENDED - {_S.REUSED}) | (_ACTIVE - {_S.PLACED, _S.QUEUED}),
    **{status: frozenset() for status in ENDED},
}


def may_follow(before: JobStatus, after: JobStatus) -> bool:
    """Whether a job that was `before` may be `after`; staying as it is may always be told again."""
    return after is before or after in FOLLOWERS[before]
