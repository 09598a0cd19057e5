"""The questions of `dstack stop` to hosts, and the lines about the answers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence

from dstack.app.maintenance.mark_lost import open_attempts
from dstack.app.maintenance.run_stop import LostAttemptFate, end_lost_attempt, foreign_claims, lost_claims
from dstack.app.queries.run_views import JobView
from dstack.core.format.records import Claim, RunRecord
from dstack.errors import DstackError
from dstack.model import WorkflowName
from dstack.session.hosts import open_hosts
from dstack.session.session import Session
from dstack.ui.tables import note


def foreign_lines(session: Session, record: RunRecord, jobs: Sequence[JobView]) -> list[str]:
    """A line for each open attempt of another account of the host than the account in use, with the command to end the
    attempt. A host without an answer has no line."""
    live = open_attempts(session.bucket, session.keys, jobs)
    claims = {workflow: attempt.claim for workflow, attempt in live.items()}
    return asyncio.run(_foreign(session, record, claims)) if claims else []


async def _foreign(session: Session, record: RunRecord, claims: Mapping[WorkflowName, Claim]) -> list[str]:
    async with open_hosts(session) as hosts:
        foreign = await foreign_claims(hosts.fleet, claims)
    return [_foreign_line(record, workflow, claim) for workflow, claim in foreign.items()]


def _foreign_line(record: RunRecord, workflow: str, claim: Claim) -> str:
    account, place = claim.account or "its owner", f"{workflow} on {claim.host}"
    ending = f"{place} belongs to account {account}, whose coordinators alone can end it: within minutes where hosts"
    return f"{ending} stand by, else once {account} types: dstack attach {record.name}"


def end_orphans(session: Session, jobs: Sequence[JobView]) -> bool:
    """End all living attempts of the jobs called lost -> whether no living attempt is left.

    Standard error gets a line for each attempt.
    """
    claims = lost_claims(session.bucket, session.keys, jobs)
    return asyncio.run(_end(session, claims)) if claims else True


async def _end(session: Session, claims: Mapping[str, Claim]) -> bool:
    gone = True
    async with open_hosts(session) as hosts:
        for folder, claim in claims.items():
            try:
                fate = await end_lost_attempt(hosts.fleet, session.bucket, session.keys, folder, claim)
                line = _fate_line(fate, claim)
                gone = gone and fate is not LostAttemptFate.FOREIGN
            except DstackError as error:
                line = f"{error}; what may still run there ends when you reach it: dstack stop {claim.run_name}"
                gone = False
            sys.stderr.write(note(line, sys.stderr))
    return gone


def _fate_line(fate: LostAttemptFate, claim: Claim) -> str:
    match fate:
        case LostAttemptFate.FOREIGN:
            return f"{claim.host}: only {claim.account} can end what may still run there: dstack stop {claim.run_name}"
        case LostAttemptFate.ENDED:
            return f"{claim.host}: a lost attempt of {claim.run_name} still ran, and was ended"
    return f"{claim.host}: nothing of a lost attempt of {claim.run_name} runs any more"
