"""`dstack run`, `dstack attach`, and the coordinator in the background."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Annotated

import typer

from dstack.adapters.identity import machine_name, user_name
from dstack.app.coordination.handover import Handed
from dstack.app.coordination.run import submit
from dstack.app.queries.dry_run import Fate, foresee
from dstack.app.queries.runs import run_view
from dstack.cli.arguments import RUN, THE_RUN
from dstack.cli.command_session import open_session
from dstack.cli.runs.attendance import (
    EXIT,
    Attendance,
    attend,
    coordinate,
    leave,
    left_out,
    lent,
    print_json,
    where_it_goes_on,
)
from dstack.cli.runs.run_line import Asked, read_arguments
from dstack.cli.runs.submission import caller_values, plan_run, rename
from dstack.core.format.records import Final, RunRecord, unpack
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


def attach(
    run: Annotated[str | None, RUN] = None,
    hosts: Annotated[str | None, typer.Option("--hosts", metavar="FILE", help="Inventory to use.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the run as JSON when it has ended.")] = False,
) -> int:
    """Come back to a run: see its logs, and look after it here until it has ended. Ctrl-C detaches again.

    RUN may be the beginning of a name; without it, or as `-`, it is your own last run on this machine.
    """
    session = open_session(hosts_file=hosts)
    record = session.require_run(run)
    key = session.keys.run(record.id).final
    body = session.bucket.get(key)
    if body is not None:
        return _already(session, record, unpack(Final, key, body), as_json=as_json)
    session.prefetch()
    caller = caller_values(session, record.plan.jobs, required=False)
    tended = run_view(session.bucket, session.keys, record, look=session.look).tended
    renews = tended is not None and tended.over > 0
    stands_by = _is_own(record) and not renews and not (tended is not None and tended.by)
    attendance = Attendance(session=session, caller=caller, as_json=as_json, renews=renews, stands_by=stands_by)
    return asyncio.run(attend(attendance, lambda: record, needs_host=False))


def _is_own(record: RunRecord) -> bool:
    """Whether this user made the run on this machine: nobody else's is left to hosts that stand by."""
    return (record.user, record.machine) == (user_name(), machine_name())


def _already(session: Session, record: RunRecord, final: Final, *, as_json: bool) -> int:
    if as_json:
        print_json(session, record)
    else:
        print(f"{record.name}: {final.status}; `dstack logs {record.name}` prints its logs")
    return EXIT[final.status]


def coordinate_(
    run: Annotated[str, THE_RUN],
    hosts: Annotated[str | None, typer.Option("--hosts", metavar="FILE")] = None,
    only: Annotated[list[str] | None, typer.Option("--only", metavar="HOST")] = None,
) -> None:
    """Bring a recorded run to its end without a terminal; values of the caller come as JSON on standard input."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    caller = json.loads(sys.stdin.buffer.read() or b"{}")
    session = open_session(hosts_file=hosts)
    asyncio.run(coordinate(Attendance(session=session, caller=caller), session.require_run(run), only))


run_command = typer.main.get_command(app)
