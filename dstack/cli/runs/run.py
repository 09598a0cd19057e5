"""`dstack run`: plan, record and run a workflow."""

from __future__ import annotations

import asyncio
import sys

import typer

from dstack.app.coordination.handover import HandoverResult
from dstack.cli.attend.follow import FollowOptions, follow_run, leave_run, print_json
from dstack.cli.attend.handover_lines import credential_lines, left_out_lines, where_it_goes_on
from dstack.cli.command_session import open_session
from dstack.cli.runs.run_arguments import RunLine, read_arguments
from dstack.core.format.records import RunRecord
from dstack.errors import UsageError
from dstack.session.hosts import prefetch_ssh
from dstack.session.session import Session
from dstack.session.submission import caller_values, prepare_run, record_run

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    # Variables are options that only the project knows: `read_arguments` takes the whole line apart.
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
def run(context: typer.Context) -> int:
    """Run a workflow and all it depends on; what already ran with the same code, variables and inputs is reused."""
    line = read_arguments(context.args)
    session = open_session(hosts_file=line.hosts)
    if line.wants_help or line.workflow is None:
        return _help(session, line)
    return start(session, line)


def _help(session: Session, line: RunLine) -> int:
    from dstack.ui.run_help import run_help, workflow_help

    project = session.project()
    print(run_help(project) if line.workflow is None else workflow_help(project, line.workflow))
    if not line.wants_help:
        raise UsageError("say which workflow to run", hint="dstack run WORKFLOW")
    return 0


def start(session: Session, line: RunLine) -> int:
    """Plan, record and run -> exit code. Until a host is reached nothing is recorded, and a dry run records nothing."""
    prepared = prepare_run(session, line.request(command=("dstack", *sys.argv[1:])))
    if line.dry_run:
        from dstack.cli.runs.dry_run import print_plan

        print_plan(session, prepared, offline=line.offline)
        return 0
    needs_host = bool(prepared.running)
    options = FollowOptions(
        caller=caller_values(session, prepared.running),
        jobs=prepared.placed,
        needs_host=needs_host,
        as_json=line.as_json,
        stands_by=True,
    )
    if needs_host:
        # Not earlier: importing the SSH library costs a reused run more than all else together.
        prefetch_ssh(session)

    def obtain_record() -> RunRecord:
        return record_run(session, prepared.submission)

    if not line.detach or not needs_host:
        return asyncio.run(follow_run(session, obtain_record, options))
    record, handed = asyncio.run(leave_run(session, prepared.record, obtain_record, options))
    if line.as_json:
        print_json(session, record)
    else:
        _say_detached(record, handed)
    return 0


def _say_detached(record: RunRecord, handed: HandoverResult) -> None:
    print(f"{record.name} {where_it_goes_on(handed)}")
    for line in [*left_out_lines(handed), *credential_lines(handed, record.name)]:
        print(f"  {line}")
    print(f"  dstack attach {record.name}    comes back to it")
    print(f"  dstack logs -f {record.name}   follows its logs")


run_command = typer.main.get_command(app)
