"""`dstack stop`: ask for the end of a run, or of a workflow in the run, and wait for the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from dstack.app.queries.run_views import JobView
from dstack.app.queries.runs import job_of, run_view, with_lost_attempts
from dstack.cli.arguments import HOSTS_OPTION, REQUIRED_RUN_ARGUMENT, WORKFLOW_ARGUMENT
from dstack.cli.command_session import open_session
from dstack.core.format.records import RunRecord, Stop, at_machine
from dstack.core.lifecycle import ENDED_STATES
from dstack.errors import UsageError
from dstack.model import WorkflowName
from dstack.session.session import Session
from dstack.ui.plain import job_line
from dstack.ui.tables import brief, note
from dstack.ui.terminal import clean
from dstack.ui.times import clock_text

if TYPE_CHECKING:
    from dstack.app.queries.runs import PresenceSource

HELP_AFTER_S = 3.0
"""Seconds before a coordinator is started here, in case the run has no other."""
STOP_WAIT_S = 60.0
STOP_POLL_S = 0.2
MAX_NAMED_JOBS = 3
"""Jobs named by their workflows where a stop has not ended all jobs."""
STILL_RUNNING_EXIT = 1
"""The exit code where a stopped job has not ended, or may still run."""


def stop(
    run: Annotated[str | None, REQUIRED_RUN_ARGUMENT] = None,
    workflow: Annotated[str | None, WORKFLOW_ARGUMENT] = None,
    abort: Annotated[bool, typer.Option("--abort", help="Do not keep the artifacts of what is running.")] = False,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask before stopping somebody else's run.")] = False,
    hosts: Annotated[str | None, HOSTS_OPTION] = None,
) -> int:
    """Stop a run: its running jobs get TERM, time to clean up, and KILL; their artifacts are kept as partial.

    Waits for a minute until all has ended. Exits with 1 when something has not, or may still run: its host cannot be
    reached, its account is another one, or the kernel does not end it. The request stands all the same.

    Before the run of somebody else, or of another machine of yours, it asks; without a terminal it then needs --yes.
    A job that another run waits for too goes on for that run. RUN may be the beginning of a name; `-` is your own last
    run on this machine.
    """
    if run is None:
        raise UsageError("say which run to stop", hint="dstack stop RUN; `dstack stop -` stops your own last one")
    session = open_session(hosts_file=hosts)
    record = session.require_run(run)
    chosen = _chosen(session, record, workflow)
    if all(job.status in ENDED_STATES for job in chosen):
        print(_summary(chosen))
        return 0 if _end_orphans(session, record, chosen) else STILL_RUNNING_EXIT
    if not yes:
        _confirm(record)
    _request(session, record, workflow, abort=abort)
    print(f"{record.name} is asked to stop", file=sys.stderr, flush=True)
    left = False
    try:
        jobs = _wait(session, record, workflow)
    except KeyboardInterrupt:
        # Ctrl-C leaves the wait, not the request: the present state is still worth printing.
        left, jobs = True, _chosen(session, record, workflow)
    return _conclude(session, record, workflow, jobs, left=left)


def _conclude(
    session: Session, record: RunRecord, workflow: str | None, jobs: tuple[JobView, ...], *, left: bool
) -> int:
    """Print the ends of the jobs, and the open jobs -> exit code; raises KeyboardInterrupt where Ctrl-C `left` open
    jobs."""
    ended = all(job.status in ENDED_STATES for job in jobs)
    if not ended:
        jobs = _chosen(session, record, workflow, look=session.look)
        ended = all(job.status in ENDED_STATES for job in jobs)
    print(_summary(jobs), flush=True)
    if not ended:
        sys.stderr.write(note(goes_on(record.name, jobs), sys.stderr))
    gone = _end_orphans(session, record, jobs)
    if left and not ended:
        raise KeyboardInterrupt
    return 0 if ended and gone else STILL_RUNNING_EXIT


def goes_on(run: str, jobs: Sequence[JobView]) -> str:
    """The open jobs, with their hosts, and the way out for a person, in a line."""
    open_ = [job for job in jobs if job.status not in ENDED_STATES]
    more = len(open_) - MAX_NAMED_JOBS
    names = ", ".join(map(_place, open_[:MAX_NAMED_JOBS])) + (f" and {more} more" if more > 0 else "")
    text = f"{run} has not ended: {names}; the request stands, `dstack show {run}` says when it has"
    silent = sorted({brief(job.host) for job in open_ if job.unreachable})
    return f"{text}; if {' or '.join(silent)} will not be back: dstack lost {run}" if silent else text


def _place(job: JobView) -> str:
    """`train on gpu-1 (stopping, unreachable since 12:03)`."""
    where = f" on {brief(job.host)}" if job.host else ""
    since = f", unreachable since {clock_text('%H:%M', job.unreachable)}" if job.unreachable else ""
    return f"{job.workflow}{where} ({job.status}{since})"


def _confirm(record: RunRecord) -> None:
    """Ask before every run but the own runs made on this machine (as `ps --mine` counts runs); raises UsageError unless
    the answer is yes."""
    from dstack.adapters.process_identity import machine_name, user_name

    if (record.user, record.machine) == (user_name(), machine_name()):
        return
    whose_text = clean(f"{record.name} is {at_machine(record.user, record.machine)}'s run")
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{whose_text}, and nobody is there to be asked", hint="--yes stops it without a question")
    if not typer.confirm(f"{whose_text}; stop it?", default=False, err=True):
        raise UsageError("nothing was stopped")


def _request(session: Session, record: RunRecord, workflow: str | None, *, abort: bool) -> None:
    """Write the stop request; an earlier request stays."""
    from dstack.adapters.process_identity import new_nonce, user_name
    from dstack.app.maintenance.run_stop import request_stop

    user = user_name()
    request = Stop(nonce=new_nonce(), user=user, reason=f"stopped by {user}", abort=abort)
    name = WorkflowName(workflow) if workflow else None
    request_stop(session.bucket, session.keys, record, request, workflow=name)


def _wait(session: Session, record: RunRecord, workflow: str | None) -> tuple[JobView, ...]:
    """The jobs as soon as all have ended, or after STOP_WAIT_S."""
    from dstack.session.background_coordinators import finish_in_background

    begin = time.monotonic()
    helped = False
    while True:
        jobs = _chosen(session, record, workflow)
        waited = time.monotonic() - begin
        if all(job.status in ENDED_STATES for job in jobs) or waited > STOP_WAIT_S:
            return jobs
        # A living coordinator acts on the request within moments, and needs no help.
        if waited > HELP_AFTER_S and not helped:
            finish_in_background(session, record)
            helped = True
            if _are_foreign(session, record, jobs):
                return jobs
            _say_where(jobs)
        time.sleep(STOP_POLL_S)


def _are_foreign(session: Session, record: RunRecord, jobs: tuple[JobView, ...]) -> bool:
    """Whether all open jobs belong to other accounts of their hosts, the only accounts to end the jobs; prints the
    lines."""
    from dstack.cli.runs.stop_hosts import foreign_lines

    open_ = [job for job in jobs if job.status not in ENDED_STATES and job.host]
    lines = foreign_lines(session, record, open_)
    for line in lines:
        sys.stderr.write(note(line, sys.stderr))
    return bool(lines) and len(lines) == len(open_)


def _end_orphans(session: Session, record: RunRecord, jobs: tuple[JobView, ...]) -> bool:
    """End all living attempts called lost -> whether no living attempt is left."""
    if not any(job.lost for job in jobs):
        return True
    from dstack.cli.runs.stop_hosts import end_orphans

    return end_orphans(session, jobs)


def _say_where(jobs: tuple[JobView, ...]) -> None:
    """Print the hosts of the wait; the request stands also without the wait."""
    hosts = sorted({job.host for job in jobs if job.status not in ENDED_STATES and job.host})
    if hosts:
        text = (
            f"waiting for {', '.join(hosts)}, which cleans up or cannot be reached; Ctrl-C leaves, the request stands;"
            " a host that will not be back: `dstack lost`"
        )
        sys.stderr.write(note(text, sys.stderr))


def _chosen(
    session: Session, record: RunRecord, workflow: str | None, *, look: PresenceSource | None = None
) -> tuple[JobView, ...]:
    view = run_view(session.bucket, session.keys, record, look=look)
    view = with_lost_attempts(session.bucket, session.keys, view)
    return view.jobs if workflow is None else (job_of(view, workflow),)


def _summary(jobs: Sequence[JobView]) -> str:
    """A line for each job."""
    return "\n".join(job_line(job.workflow, job.status, job.host, job.reason, job.reused_from or "") for job in jobs)
