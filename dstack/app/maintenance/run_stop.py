"""The end of a run by the word of a person: the request, and attempts that no coordinator will end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from dstack.app.coordination.orphans import end_orphan, find_orphans, record_orphan_gone
from dstack.app.hosts.fleet import Fleet
from dstack.app.protocol.create_if_absent import create_now
from dstack.app.queries.run_views import JobView
from dstack.app.queries.runs import attempt_of
from dstack.core.foreign_attempts import belongs
from dstack.core.format.key_parser import attempt_in
from dstack.core.format.keys import ProjectKeys
from dstack.core.format.records import Claim, RunRecord, Stop, pack, unpack
from dstack.errors import DstackError
from dstack.model import Word, WorkflowName
from dstack.ports import Bucket


class LostAttemptFate(Word):
    """The end of a lost attempt that perhaps still ran on the host."""

    ENDED = "ended"
    """The attempt still ran, and was ended now."""
    GONE = "gone"
    """Nothing of the attempt runs any more."""
    FOREIGN = "foreign"
    """The attempt belongs to another account of the host, which alone can end it."""


def request_stop(
    bucket: Bucket, keys: ProjectKeys, record: RunRecord, request: Stop, *, workflow: WorkflowName | None
) -> None:
    """Write the stop request of a run, or of one workflow of the run; an earlier request stays as it is.

    Raises UndecidedError where the bucket does not say whether the request stands.
    """
    create_now(bucket, keys.run(record.id).stop(workflow), pack(request))


async def foreign_claims(fleet: Fleet, claims: Mapping[WorkflowName, Claim]) -> dict[WorkflowName, Claim]:
    """The claims whose hosts answer under another account than the account of the claim.

    A claim whose host gives no answer is not among them.
    """
    return {workflow: claim for workflow, claim in claims.items() if await _is_foreign(fleet, claim)}


async def _is_foreign(fleet: Fleet, claim: Claim) -> bool:
    try:
        _, reached = await fleet.locate(claim)
    except DstackError:
        return False
    return not belongs(claim, reached.facts)


def lost_claims(bucket: Bucket, keys: ProjectKeys, jobs: Sequence[JobView]) -> dict[str, Claim]:
    """The claims of attempts that were called lost and may live, by the folder of the attempt."""
    found = {}
    for job in jobs:
        last = attempt_of(keys, job)
        if last is None:
            continue
        for number in job.lost:
            attempt = last.attempt(number)
            body = bucket.get(attempt.claim)
            if body is not None:
                found[attempt.folder] = unpack(Claim, attempt.claim, body)
    return found


async def end_lost_attempt(
    fleet: Fleet, bucket: Bucket, keys: ProjectKeys, folder: str, claim: Claim
) -> LostAttemptFate:
    """End the attempt in `folder` where it still lives on its host, and record that nothing of it does.

    Raises DstackError where the host gives no answer.
    """
    _, reached = await fleet.locate(claim)
    if not belongs(claim, reached.facts):
        return LostAttemptFate.FOREIGN
    for orphan in await find_orphans(reached.runner, bucket, keys):
        if orphan.attempt.folder == folder:
            await end_orphan(reached.runner, bucket, orphan)
            return LostAttemptFate.ENDED
    attempt = attempt_in(keys, folder)
    if attempt is not None:
        await asyncio.to_thread(record_orphan_gone, bucket, attempt, claim.nonce)
    return LostAttemptFate.GONE
