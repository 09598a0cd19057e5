"""`dstack attach`: come back to a run."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from dstack.adapters.process_identity import machine_name, user_name
from dstack.app.queries.runs import run_view
from dstack.cli.arguments import RUN_ARGUMENT
from dstack.cli.attend.follow import RUN_EXIT_CODES, FollowOptions, follow_run, print_json
from dstack.cli.command_session import open_session
from dstack.core.format.records import Final, RunRecord, unpack
from dstack.session.hosts import prefetch_ssh
from dstack.session.session import Session
from dstack.session.submission import caller_values


def attach(
    run: Annotated[str | None, RUN_ARGUMENT] = None,
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
    prefetch_ssh(session)
    caller = caller_values(session, record.plan.jobs, required=False)
    caretakers = run_view(session.bucket, session.keys, record, look=session.look).caretakers
    # Hosts whose credentials ended wait with results: this user may lend new ones.
    renews = caretakers is not None and caretakers.credentials_end > 0
    stands_by = _is_own(record) and not renews and not (caretakers is not None and caretakers.by)
    options = FollowOptions(caller=caller, as_json=as_json, renews=renews, stands_by=stands_by)
    return asyncio.run(follow_run(session, lambda: record, options))


def _is_own(record: RunRecord) -> bool:
    """Whether this user made the run on this machine: only own runs are left to hosts in stand-by."""
    return (record.user, record.machine) == (user_name(), machine_name())


def _already(session: Session, record: RunRecord, final: Final, *, as_json: bool) -> int:
    if as_json:
        print_json(session, record)
    else:
        print(f"{record.name}: {final.status}; `dstack logs {record.name}` prints its logs")
    return RUN_EXIT_CODES[final.status]
