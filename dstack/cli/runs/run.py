"""`dstack run`: plan, record and run a workflow."""

from __future__ import annotations

import asyncio

import typer

from dstack.app.coordination.handover import Handed
from dstack.app.coordination.run import submit
from dstack.app.queries.dry_run import Fate, foresee
from dstack.cli.command_session import open_session
from dstack.cli.runs.attendance import (
    Attendance,
    attend,
    leave,
    left_out,
    lent,
    print_json,
    where_it_goes_on,
)
from dstack.cli.runs.run_line import Asked, read_arguments
from dstack.cli.runs.submission import caller_values, plan_run, rename
from dstack.core.format.records import RunRecord
from dstack.errors import UsageError
from dstack.session.secret_values import require_secrets
from dstack.session.session import Session

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
def run(context: typer.Context) -> int:
    """Run a workflow and all it depends on; what already ran with the same code, variables and inputs is reused."""
    asked = read_arguments(context.args)
    session = open_session(hosts_file=asked.hosts)
    if asked.wants_help or asked.workflow is None:
        return _help(session, asked)
    return start(session, asked)


def _help(session: Session, asked: Asked) -> int:
    from dstack.ui.runhelp import run_help, workflow_help

    project = session.project()
    print(run_help(project) if asked.workflow is None else workflow_help(project, asked.workflow))
    if not asked.wants_help:
        raise UsageError("say which workflow to run", hint="dstack run WORKFLOW")
    return 0


def start(session: Session, asked: Asked) -> int:
    """Plan, record and run -> exit code. Until a host is reached nothing is recorded, and a dry run records nothing."""
    planned, submission = plan_run(session, asked)
    fates = foresee(session.bucket, session.keys, planned)
    running = {fate.workflow for fate in fates if fate.fate is not Fate.REUSED}
    # What is reused is given nothing, so that who lacks a secret can use what others made with it.
    jobs = [spec for spec in planned.plan.jobs if spec.workflow in running]
    require_secrets(session.secrets, jobs)
    if asked.dry_run:
        from dstack.cli.runs.dry_run import print_plan

        print_plan(session, fates, jobs, offline=asked.offline)
        return 0
    caller = caller_values(session, jobs)
    joining = {fate.workflow for fate in fates if fate.fate is Fate.JOINS}
    placed = tuple(spec for spec in jobs if spec.workflow not in joining)
    attendance = Attendance(session=session, caller=caller, jobs=placed, as_json=asked.as_json, stands_by=True)
    needs_host = bool(jobs)
    if needs_host:
        # Not before it is known: importing the SSH library costs a reused run more than all else it does.
        session.prefetch()

    def recorded() -> RunRecord:
        session.probe_bucket()
        return submit(session.bucket, session.keys, submission, rename=rename)

    if not asked.detach or not needs_host:
        return asyncio.run(attend(attendance, recorded, needs_host=needs_host))
    record, handed = asyncio.run(leave(attendance, planned, recorded))
    _say_detached(attendance, record, handed)
    return 0


def _say_detached(attendance: Attendance, record: RunRecord, handed: Handed) -> None:
    if attendance.as_json:
        print_json(attendance.session, record)
        return
    print(f"{record.name} {where_it_goes_on(handed)}")
    for line in [*left_out(handed), *lent(handed, record.name)]:
        print(f"  {line}")
    print(f"  dstack attach {record.name}    comes back to it")
    print(f"  dstack logs -f {record.name}   follows its logs")


run_command = typer.main.get_command(app)
