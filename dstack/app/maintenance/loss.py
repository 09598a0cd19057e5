"""What only a person can know: that an attempt will never come back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dstack.app.coordination.run import create_record
from dstack.app.protocol.lists import last_number_now
from dstack.app.queries.runs import attempt_of
from dstack.app.queries.views import JobView
from dstack.core.format.keys import AttemptKeys, ProjectKeys
from dstack.core.format.records import Claim, Coordinator, End, Owner, pack, unpack
from dstack.core.lifecycle import ENDED, AttemptEnd
from dstack.model import WorkflowName
from dstack.ports import Bucket


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """An attempt that has not ended, its claim, and who looked after it last."""

    workflow: WorkflowName
    keys: AttemptKeys
    claim: Claim
    owner: Coordinator


def open_attempts(bucket: Bucket, keys: ProjectKeys, jobs: Sequence[JobView]) -> tuple[Open, ...]:
    """The attempts of these jobs that have not ended. Reads only."""
    found = []
    for job in jobs:
        attempt = None if job.status in ENDED else attempt_of(keys, job)
        if attempt is None or bucket.get(attempt.end) is not None:
            continue
        body = bucket.get(attempt.claim)
        if body is None:
            continue
        claim = unpack(Claim, attempt.claim, body)
        owner = claim.coordinator
        adoptions = last_number_now(bucket, attempt.owners, attempt.owner)
        if adoptions:
            key = attempt.owner(adoptions)
            owner = unpack(Owner, key, bucket.get(key) or b"").coordinator
        found.append(Open(workflow=job.workflow, keys=attempt, claim=claim, owner=owner))
    return tuple(found)


def call_lost(bucket: Bucket, open_: Open, user: str) -> bool:
    """Record that the attempt is lost -> whether that stands now; False when it ended meanwhile.

    Whoever waits for the job goes on from there: another attempt where `retry` says so, else `lost` is its outcome.
    Should the attempt live after all and come to a result first, that result counts.
    """
    end = End(nonce=open_.claim.nonce, status=AttemptEnd.LOST, reason=f"called lost by {user}", host=open_.claim.host)
    return create_record(bucket, open_.keys.end, pack(end))
