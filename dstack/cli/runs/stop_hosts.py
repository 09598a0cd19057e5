"""What `dstack stop` asks hosts: whose the attempts are that it cannot end, and what lost attempts left running."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence

from dstack.app.coordination.orphans import end_orphan, find_orphans, record_gone
from dstack.app.hosts.fleet import Fleet
from dstack.app.maintenance.mark_lost import open_attempts
from dstack.app.protocol.jobs import Live
from dstack.app.queries.runs import attempt_of
from dstack.app.queries.views import JobView
from dstack.core.format.key_parser import attempt_in
from dstack.core.format.records import Claim, RunRecord, unpack
from dstack.core.sightings import belongs
from dstack.errors import DstackError
from dstack.model import WorkflowName
from dstack.session.hosts import open_hosts
from dstack.session.session import Session
from dstack.ui.tables import note


def foreign_lines(session: Session, record: RunRecord, jobs: Sequence[JobView]) -> list[str]:
    """A line for each open attempt whose host answers under another account than the attempt's, with the command that
    ends it. Asks the hosts of open attempts; one that gives no answer has no line."""
    found = open_attempts(session.bucket, session.keys, jobs)
    return asyncio.run(_foreign(session, record, found)) if found else []


async def _foreign(session: Session, record: RunRecord, found: Mapping[WorkflowName, Live]) -> list[str]:
    lines = []
    async with open_hosts(session) as hosts:
        for workflow, each in found.items():
            if await _is_foreign(hosts.fleet, each.claim):
                who, where = each.claim.account or "its owner", f"{workflow} on {each.claim.host}"
                told = (
                    f"{where} belongs to account {who}, whose coordinators alone can end it: within minutes where hosts"
                )
                lines.append(f"{told} stand by, else once {who} types: dstack attach {record.name}")
    return lines


async def _is_foreign(fleet: Fleet, claim: Claim) -> bool:
    try:
        _, reached = await fleet.locate(claim)
    except DstackError:
        return False
    return not belongs(claim, reached.facts)


def end_orphans(session: Session, record: RunRecord, jobs: Sequence[JobView]) -> bool:
    """End what still runs of attempts of the run that were called lost -> whether nothing of them is left; says what
    was ended, and what could not be."""
    lost = {
        last.attempt(number).folder: last.attempt(number)
        for job in jobs
        if job.lost and (last := attempt_of(session.keys, job)) is not None
        for number in job.lost
    }
    claims = [(keys, session.bucket.get(keys.claim)) for keys in lost.values()]
    found = {keys.folder: unpack(Claim, keys.claim, body) for keys, body in claims if body is not None}
    return asyncio.run(_end(session, found)) if found else True


async def _end(session: Session, claims: dict[str, Claim]) -> bool:
    gone = True
    async with open_hosts(session) as hosts:
        for folder, claim in claims.items():
            try:
                done, line = await _end_one(session, hosts.fleet, folder, claim)
            except DstackError as error:
                done, line = (
                    False,
                    f"{error}; what may still run there ends when you reach it: dstack stop {claim.run_name}",
                )
            gone = gone and done
            sys.stderr.write(note(line, sys.stderr))
    return gone


async def _end_one(session: Session, fleet: Fleet, folder: str, claim: Claim) -> tuple[bool, str]:
    """Whether nothing of the attempt is left, and what is to be said of it."""
    _, reached = await fleet.locate(claim)
    if not belongs(claim, reached.facts):
        return (
            False,
            f"{claim.host}: only {claim.account} can end what may still run there: dstack stop {claim.run_name}",
        )
    for orphan in await find_orphans(reached.runner, session.bucket, session.keys):
        if orphan.attempt.folder == folder:
            await end_orphan(reached.runner, session.bucket, orphan)
            return True, f"{claim.host}: a lost attempt of {claim.run_name} still ran, and was ended"
    keys = attempt_in(session.keys, folder)
    if keys is not None:
        await asyncio.to_thread(record_gone, session.bucket, keys, claim.nonce)
    return True, f"{claim.host}: nothing of a lost attempt of {claim.run_name} runs any more"
