"""`dstack stop`: ask that a run, or one workflow of it, ends, and wait until it has."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from dstack.app.overview import job_of, run_view, with_lost_attempts
from dstack.app.views import JobView, at_machine
from dstack.cli import wiring
from dstack.cli.arguments import HOSTS, THE_RUN, WORKFLOW
from dstack.core.lifecycle import ENDED
from dstack.core.records import RunRecord, Stop, pack
from dstack.errors import UsageError
from dstack.model import WorkflowName
from dstack.ui.plain import job_line
from dstack.ui.terminal import clean

ALONE = 3.0
"""Seconds after which a coordinator is started here, in case nobody else looks after the run."""
PATIENCE = 60.0
LOOK = 0.2


def stop(
    run: Annotated[str | None, THE_RUN] = None,
    workflow: Annotated[str | None, WORKFLOW] = None,
    abort: Annotated[bool, typer.Option("--abort", help="Do not keep the artifacts of what is running.")] = False,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask before stopping somebody else's run.")] = False,
    hosts: Annotated[str | None, HOSTS] = None,
) -> None:
    """Stop a run: its running jobs get TERM, time to clean up, and KILL; their artifacts are kept as partial.

    Before the run of somebody else, or of another machine of yours, it asks; without a terminal it then needs --yes.
    A job that another run waits for too goes on for that run. RUN may be the beginning of a name; `-` is your own last
    run on this machine.
    """
    if run is None:
        raise UsageError("say which run to stop", hint="dstack stop RUN; `dstack stop -` stops your own last one")
    session = wiring.open_session(hosts_file=hosts)
    record = session.require_run(run)
    chosen = _chosen(session, record, workflow)
    if all(job.status in ENDED for job in chosen):
        print(_summary(record, chosen))
        _end_orphans(session, record, chosen)
        return
    if not yes:
        _confirm(record)
    _request(session, record, workflow, abort=abort)
    print(f"{record.name} is asked to stop", file=sys.stderr, flush=True)
    try:
        jobs = _wait(session, record, workflow)
    except KeyboardInterrupt:
        jobs = _chosen(session, record, workflow)
    print(_summary(record, jobs))
    _end_orphans(session, record, jobs)


def _confirm(record: RunRecord) -> None:
    """Ask before a run that is not this user's, made on this machine (as `ps --mine` has it); raises UsageError unless
    the answer is yes."""
    from dstack.adapters.identity import machine_name, user_name

    if (record.user, record.machine) == (user_name(), machine_name()):
        return
    told = clean(f"{record.name} is {at_machine(record.user, record.machine)}'s run")
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{told}, and nobody is there to be asked", hint="--yes stops it without a question")
    if not typer.confirm(f"{told}; stop it?", default=False, err=True):
        raise UsageError("nothing was stopped")


def _request(session: wiring.Session, record: RunRecord, workflow: str | None, *, abort: bool) -> None:
    """Write the stop request; one that is there already stays as it is."""
    from dstack.adapters.identity import new_nonce, user_name
    from dstack.app.running import create_record

    user = user_name()
    request = Stop(nonce=new_nonce(), user=user, reason=f"stopped by {user}", abort=abort)
    name = WorkflowName(workflow) if workflow else None
    create_record(session.bucket, session.keys.run(record.id).stop(name), pack(request))


def _wait(session: wiring.Session, record: RunRecord, workflow: str | None) -> tuple[JobView, ...]:
    """The jobs as soon as all have ended, or as they are when patience is at its end."""
    begin = time.monotonic()
    helped = False
    while True:
        jobs = _chosen(session, record, workflow)
        waited = time.monotonic() - begin
        if all(job.status in ENDED for job in jobs) or waited > PATIENCE:
            return jobs
        if waited > ALONE and not helped:
            _help(session, record)
            helped = True
            if _are_foreign(session, record, jobs):
                return jobs
            _say_where(jobs)
        time.sleep(LOOK)


def _are_foreign(session: wiring.Session, record: RunRecord, jobs: tuple[JobView, ...]) -> bool:
    """Whether all that has not ended belongs to other accounts of its hosts, which alone can end it; says so."""
    from dstack.cli.stop_hosts import foreign_lines

    open_ = [job for job in jobs if job.status not in ENDED and job.host]
    lines = foreign_lines(session, record, open_)
    for line in lines:
        print(clean(line), file=sys.stderr, flush=True)
    return bool(lines) and len(lines) == len(open_)


def _end_orphans(session: wiring.Session, record: RunRecord, jobs: tuple[JobView, ...]) -> None:
    if any(job.lost for job in jobs):
        from dstack.cli.stop_hosts import end_orphans

        end_orphans(session, record, jobs)


def _say_where(jobs: tuple[JobView, ...]) -> None:
    """What the wait is for; the request stands, whoever waits."""
    hosts = sorted({job.host for job in jobs if job.status not in ENDED and job.host})
    if hosts:
        told = (
            f"waiting for {', '.join(hosts)}, which cleans up or cannot be reached; Ctrl-C leaves, the request stands;"
            " a host that will not be back: `dstack lost`"
        )
        print(clean(told), file=sys.stderr, flush=True)


def _help(session: wiring.Session, record: RunRecord) -> None:
    """Start a coordinator in the background: beside a living one it does no harm, without one it ends the run."""
    from dstack.cli.attending import Attendance, spawn_coordinator
    from dstack.cli.submitting import caller_values

    caller = caller_values(session, record.plan.jobs, required=False)
    spawn_coordinator(Attendance(session=session, caller=caller), record)


def _chosen(session: wiring.Session, record: RunRecord, workflow: str | None) -> tuple[JobView, ...]:
    view = with_lost_attempts(session.bucket, session.keys, run_view(session.bucket, session.keys, record))
    return view.jobs if workflow is None else (job_of(view, workflow),)


def _summary(record: RunRecord, jobs: tuple[JobView, ...]) -> str:
    """One line for each job, and what to do when some go on."""
    lines = [job_line(job.workflow, job.status, job.host, _note(job)) for job in jobs]
    if any(job.status not in ENDED for job in jobs):
        lines.append(
            f"{record.name} was asked to stop and has not ended yet; `dstack show {record.name}` says when it has"
        )
    return "\n".join(lines)


def _note(job: JobView) -> str:
    return f"from {job.reused_from}" if job.reused_from else job.reason
