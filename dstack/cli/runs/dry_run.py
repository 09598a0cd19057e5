"""`dstack run --dry-run`: the plan, and whether the hosts can run it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from dstack.app.hosts.prospects import Prospects
from dstack.app.queries.dry_run import Fate, Foresight
from dstack.cli.progress_note import telling
from dstack.errors import DstackError, NoHostError
from dstack.model import JobSpec, WorkflowName
from dstack.session.hosts import open_hosts
from dstack.session.session import Session
from dstack.ui.plan import plan_text

SLOW_HOSTS = 5.0
"""Seconds that hosts which are slow to answer have, where none of the others can run a job."""


def print_plan(session: Session, fates: Sequence[Foresight], jobs: Sequence[JobSpec], *, offline: bool) -> None:
    """Print what would become of every job. `jobs` are those that need a host.

    Raises, after the plan, what `dstack run` itself would end with: that no host can be used, or can run a job. With
    `offline` no host is asked.
    """
    waits: dict[WorkflowName, str] = {}
    joining = {fate.workflow for fate in fates if fate.fate is Fate.JOINS}
    placed = [spec for spec in jobs if spec.workflow not in joining]
    refused = asyncio.run(_refused(session, jobs, placed, waits)) if jobs and not offline else {}
    print(plan_text([_judged(fate, refused.get(fate.workflow), waits.get(fate.workflow)) for fate in fates]))
    for spec in jobs:
        if spec.workflow in refused:
            raise refused[spec.workflow]


def _judged(fate: Foresight, error: DstackError | None, waits: str | None) -> Foresight:
    if error is None:
        return fate if waits is None else replace(fate, fate=Fate.WAITS, reason=waits)
    return replace(fate, fate=Fate.NOWHERE, reason=str(error).partition("\n")[0].rstrip(":"))


async def _refused(
    session: Session, jobs: Sequence[JobSpec], placed: Sequence[JobSpec], waits: dict[WorkflowName, str]
) -> Mapping[WorkflowName, DstackError]:
    """Why a job cannot be run by any host, by its workflow; nothing is laid down on the hosts but the runner.
    `placed` are the jobs that some host must be able to run. Such a job that would wait for a host that does not
    answer comes to `waits`, with the reason."""
    refused: dict[WorkflowName, DstackError] = {}
    async with open_hosts(session) as hosts:
        try:
            with telling(f"connecting to {hosts.fleet.named()}"):
                await hosts.fleet.connect()
        except DstackError as error:
            return {spec.workflow: error for spec in jobs}
        prospects = Prospects(hosts.fleet)
        if any(map(prospects.of, placed)):
            await hosts.fleet.tried(SLOW_HOSTS)
        for spec in placed:
            try:
                prospect = prospects.require(spec)
            except NoHostError as error:
                refused[spec.workflow] = error
                continue
            if prospect is not None:
                waits[spec.workflow] = prospect.note
    return refused
