"""`dstack ps`, `show` and `why`: what the bucket says of runs. None of them touches a host."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from dstack.app.overview import job_of, list_runs, run_view
from dstack.app.views import JobView, RunView
from dstack.cli import wiring
from dstack.cli.arguments import RUN, WORKFLOW
from dstack.core.lifecycle import GOOD
from dstack.core.records import RunRecord
from dstack.model import JobStatus, WorkflowName
from dstack.ui.tables import Column, ago_text, duration_text, styled, table, use_colour
from dstack.ui.terminal import clean, clean_lines

RECENT = 10
_RUNS = (
    Column(title="RUN", floor=12),
    Column(title="WORKFLOW", floor=8),
    Column(title="STATUS", floor=9, styled=True),
    Column(title="JOBS", floor=10),
    Column(title="USER"),
    Column(title="SUBMITTED", floor=11),
)
_JOBS = (
    Column(title="WORKFLOW", floor=8),
    Column(title="STATUS", floor=9, styled=True),
    Column(title="HOST"),
    Column(title="ATTEMPT", right=True),
    Column(title="TIME", right=True),
    Column(title="NOTE", floor=16),
)


def ps(
    everything: Annotated[bool, typer.Option("-a", "--all", help="All runs.")] = False,
    number: Annotated[int, typer.Option("-n", metavar="N", min=1, help="The newest N runs.")] = RECENT,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List the newest runs of this project, newest first."""
    session = wiring.open_session()
    views = list_runs(session.bucket, session.keys, None if everything else number)
    if as_json:
        from dstack.ui.jsonout import runs_json

        print(runs_json(views))
        return
    now = time.time()
    rows = [_run_row(view, now) for view in views]
    if rows:
        sys.stdout.write(table(_RUNS, rows, sys.stdout))
    else:
        sys.stderr.write("no runs yet; `dstack run` lists the workflows\n")


def _run_row(view: RunView, now: float) -> tuple[str, ...]:
    return (view.run, view.workflow, view.status, _jobs_text(view), view.user, ago_text(view.submitted, now))


def _jobs_text(view: RunView) -> str:
    """`2 of 3 done`, `3 done`, `3 reused`."""
    total = len(view.jobs)
    good = sum(job.status in GOOD for job in view.jobs)
    if good == total and all(job.status is JobStatus.REUSED for job in view.jobs):
        return f"{total} reused"
    return f"{total} done" if good == total else f"{good} of {total} done"


def show(
    run: Annotated[str, RUN],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Print its code against the commit below it.")] = False,
) -> None:
    """Show one run: who started it from which code, and what became of its jobs."""
    session = wiring.open_session()
    record = session.require_run(run)
    if diff:
        _print_diff(session.bucket.get(session.keys.diff(record.snapshot.commit)) or b"")
        return
    view = run_view(session.bucket, session.keys, record)
    if as_json:
        from dstack.ui.jsonout import run_json

        print(run_json(view))
        return
    now = time.time()
    sys.stdout.write(_head(record, view, now))
    sys.stdout.write(table(_JOBS, [_job_row(job, now) for job in view.jobs], sys.stdout))


def _print_diff(body: bytes) -> None:
    """As it is into a pipe, for `git apply`; without control characters to a terminal."""
    if sys.stdout.isatty():
        text = body.decode("utf-8", "replace")
        sys.stdout.write(clean_lines(text.expandtabs()))
    else:
        sys.stdout.buffer.write(body)


def _head(record: RunRecord, view: RunView, now: float) -> str:
    """The facts of a run, one a line."""
    snapshot = record.snapshot
    head = f"on {snapshot.head[:12]}" if snapshot.head else "without a commit below it"
    branch = f" ({snapshot.branch})" if snapshot.branch else ""
    dirty = ", with changes that are not committed" if snapshot.dirty else ""
    status = styled(view.status) if use_colour(sys.stdout) else view.status.value
    facts = {
        "run": clean(record.name),
        "workflow": clean(record.workflow),
        "status": status,
        "user": clean(f"{record.user} on {record.machine}"),
        "submitted": f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(view.submitted))}"
        f" ({ago_text(view.submitted, now)})",
        "code": clean(f"{snapshot.commit[:12]} {head}{branch}{dirty}"),
    }
    overrides = " ".join(f"--{name} {value}" for name, value in record.plan.overrides.items())
    if overrides:
        facts["variables"] = clean(overrides)
    return "".join(f"{name:<10} {value}\n" for name, value in facts.items()) + "\n"


def _job_row(job: JobView, now: float) -> tuple[str, ...]:
    time_ = "-"
    if job.started and job.status is not JobStatus.REUSED:
        time_ = duration_text((job.ended or now) - job.started)
    note = f"from {job.reused_from}" if job.reused_from else job.reason
    return (job.workflow, job.status, job.host or "-", str(job.attempt) if job.attempt else "-", time_, note)


def why(run: Annotated[str, RUN], workflow: Annotated[str | None, WORKFLOW] = None) -> None:
    """Say for each job of a run (or for one) why it ran, by what differs from earlier jobs, or why it was reused."""
    from dstack.app.explain import explain

    session = wiring.open_session()
    record = session.require_run(run)
    view = run_view(session.bucket, session.keys, record)
    names = [job_of(view, workflow).workflow] if workflow else [job.workflow for job in view.jobs]
    for name in names:
        told = explain(session.bucket, session.keys, record, WorkflowName(name))
        print(clean(f"{name}: {told.verdict}"))
        for line in told.differences:
            print(clean(f"  {line}"))
