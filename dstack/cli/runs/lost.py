"""`dstack lost`: mark attempts as lost, on the word of a person."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dstack.app.maintenance.mark_lost import call_lost, open_attempts
from dstack.app.protocol.jobs import LiveAttempt
from dstack.app.queries.runs import job_of, run_view
from dstack.cli.arguments import HOSTS_OPTION, REQUIRED_RUN_ARGUMENT, WORKFLOW_ARGUMENT
from dstack.cli.command_session import open_session
from dstack.errors import UsageError
from dstack.ui.terminal import clean


def lost(
    run: Annotated[str, REQUIRED_RUN_ARGUMENT],
    workflow: Annotated[str | None, WORKFLOW_ARGUMENT] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    hosts: Annotated[str | None, HOSTS_OPTION] = None,
) -> None:
    """Call what runs of a run lost: its host burnt down, or will not be back in time.

    Where `retry` says `lost` the job is tried again elsewhere, else it has ended as lost. To end a job whose host can
    be reached, use `dstack stop`.
    """
    session = open_session(hosts_file=hosts)
    record = session.require_run(run)
    view = run_view(session.bucket, session.keys, record)
    attempts = open_attempts(session.bucket, session.keys, view.jobs if workflow is None else (job_of(view, workflow),))
    if not attempts:
        print(f"{record.name}: nothing of it runs")
        return
    for name, live in attempts.items():
        print(clean(_line(name, live)))
    if not yes:
        _ask()
    from dstack.adapters.process_identity import user_name

    for name, live in attempts.items():
        ended = call_lost(session.bucket, live, user_name())
        print(clean(f"{name}: {'lost' if ended else 'it ended meanwhile'}"))
    # Imported here on purpose: the check of the arguments and the question need nothing of it.
    from dstack.session.background_coordinators import finish_in_background

    finish_in_background(session, record)


def _line(workflow: str, live: LiveAttempt) -> str:
    claim, owner = live.claim, f"{live.owner.user}@{live.owner.machine}"
    spool = f"{claim.folder or '~/.dstack'} of {claim.account or 'its account'}"
    attempt_text = f"{workflow}: attempt {live.keys.number} on {claim.host}, looked after by {owner}"
    return f"{attempt_text}; its result may lie there, in {spool}"


def _ask() -> None:
    if not sys.stdin.isatty():
        raise UsageError("nobody is there to be asked", hint="--yes says that you are sure")
    if not typer.confirm("Mark as lost? If it is still alive, two copies may run", default=False):
        raise UsageError("nothing was changed")
