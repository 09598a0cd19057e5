"""`dstack run --dry-run`: the plan, and whether the hosts can run it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from dstack.app.hosts.early_refusals import HostVerdicts, judge_placement
from dstack.app.queries.dry_run import Forecast, JobForecast
from dstack.cli.progress_note import explain_wait
from dstack.errors import DstackError
from dstack.session.hosts import open_hosts
from dstack.session.session import Session
from dstack.session.submission import PreparedRun
from dstack.ui.plan import plan_text


def print_plan(session: Session, prepared: PreparedRun, *, offline: bool) -> None:
    """Print the future of every job.

    Raises, after the plan, the error of `dstack run` itself where no host can be used, or no host can run a job. With
    `offline` no host is asked.
    """
    verdicts = HostVerdicts()
    if prepared.running and not offline:
        verdicts = asyncio.run(_verdicts(session, prepared))
    refused, waits = verdicts.refused, verdicts.waits
    fates = [_judged(each, refused.get(each.workflow), waits.get(each.workflow)) for each in prepared.forecast]
    print(plan_text(fates))
    for spec in prepared.running:
        if spec.workflow in refused:
            raise refused[spec.workflow]


def _judged(fate: JobForecast, error: DstackError | None, waits: str | None) -> JobForecast:
    if error is None:
        return fate if waits is None else replace(fate, fate=Forecast.WAITS, reason=waits)
    # The lines below the first have the errors of single hosts: too much for a cell.
    return replace(fate, fate=Forecast.NOWHERE, reason=str(error).partition("\n")[0].rstrip(":"))


async def _verdicts(session: Session, prepared: PreparedRun) -> HostVerdicts:
    """The verdicts of the session's hosts on the jobs; nothing is laid down on the hosts but the runner."""
    async with open_hosts(session) as hosts:
        try:
            with explain_wait(f"connecting to {hosts.fleet.names_text()}"):
                await hosts.fleet.connect()
        except DstackError as error:
            return HostVerdicts(refused={spec.workflow: error for spec in prepared.running})
        return await judge_placement(hosts.fleet, prepared.placed)
