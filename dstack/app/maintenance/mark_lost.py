"""Attempts called lost by a person: only a person can know of a host gone for ever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dstack.app.protocol.bucket_performer import read_only
from dstack.app.protocol.create_if_absent import create_now
from dstack.app.protocol.jobs import LiveAttempt, live_attempt
from dstack.app.queries.run_views import JobView
from dstack.app.queries.runs import attempt_of
from dstack.core.format.keys import ProjectKeys
from dstack.core.format.records import End, pack
from dstack.core.lifecycle import ENDED_STATES, AttemptEnd
from dstack.model import WorkflowName
from dstack.ports import Bucket


def open_attempts(bucket: Bucket, keys: ProjectKeys, jobs: Sequence[JobView]) -> Mapping[WorkflowName, LiveAttempt]:
    """The attempts of these jobs that have not ended, by workflow. Reads only."""
    found = {}
    for job in jobs:
        attempt = None if job.status in ENDED_STATES else attempt_of(keys, job)
        live = read_only(live_attempt(attempt), bucket) if attempt is not None else None
        if live is not None:
            found[job.workflow] = live
    return found


def call_lost(bucket: Bucket, live: LiveAttempt, user: str) -> bool:
    """Record that the attempt is lost -> whether the record stands; False when the attempt ended meanwhile.

    Every waiting run goes on from there: another attempt where `retry` says so, else `lost` is the outcome. Should the
    attempt live after all and commit its result first, the result counts.
    """
    claim = live.claim
    end = End(nonce=claim.nonce, status=AttemptEnd.LOST, reason=f"called lost by {user}", host=claim.host)
    return create_now(bucket, live.keys.end, pack(end))
