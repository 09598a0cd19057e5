"""`dstack show`: a run with all jobs, by the bucket alone. No host is asked."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from dstack.app.queries.run_views import JobView, RunView
from dstack.app.queries.runs import run_view
from dstack.cli.arguments import RUN_ARGUMENT
from dstack.cli.command_session import open_session
from dstack.cli.runs.table_notes import left_alone, out_of_sight
from dstack.core.format.records import RunRecord
from dstack.model import JobStatus
from dstack.ui.plain import job_note
from dstack.ui.tables import Column, notes, style_status, table, use_colour
from dstack.ui.terminal import clean, clean_lines
from dstack.ui.times import ago_text, clock_text, since_text

_JOBS = (
    Column(title="WORKFLOW", floor=8),
    Column(title="STATUS", floor=9, styled=True),
    Column(title="HOST"),
    Column(title="ATTEMPT", right=True),
    Column(title="TIME", right=True, floor=7),
    Column(title="NOTE", floor=16, wraps=True),
)


def show(
    run: Annotated[str | None, RUN_ARGUMENT] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Print its code against the commit below it.")] = False,
) -> None:
    """Show one run: who started it from which code, and what became of its jobs.

    RUN may be the beginning of a name; without it, or as `-`, it is your own last run on this machine.
    """
    session = open_session()
    record = session.require_run(run, named=False)
    if diff:
        _print_diff(session.bucket.get(session.keys.diff(record.snapshot.commit)) or b"")
        return
    view = run_view(session.bucket, session.keys, record, look=session.look)
    if as_json:
        from dstack.ui.jsonout import run_json

        print(run_json(view))
        return
    now = time.time()
    sys.stdout.write(_head(record, view, now))
    sys.stdout.write(table(_JOBS, [_job_row(job, now) for job in view.jobs], sys.stdout))
    sys.stdout.write(notes((*out_of_sight(view, now), *left_alone(view, now)), sys.stdout))


def _print_diff(body: bytes) -> None:
    """Print the unchanged bytes into a pipe, for `git apply`; no control characters to a terminal."""
    if sys.stdout.isatty():
        text = body.decode("utf-8", "replace")
        # `clean_lines` makes one space of each tab; the indentation of code has to stay.
        sys.stdout.write(clean_lines(text.expandtabs()))
    else:
        sys.stdout.buffer.write(body)


def _head(record: RunRecord, view: RunView, now: float) -> str:
    """The facts of a run, a fact in each line."""
    snapshot = record.snapshot
    head = f"on {snapshot.head[:12]}" if snapshot.head else "no commit yet"
    branch = f" ({snapshot.branch})" if snapshot.branch else ""
    dirty = ", uncommitted changes" if snapshot.dirty else ""
    status = style_status(view.stage) if use_colour(sys.stdout) else view.stage.value
    facts = {
        "run": clean(record.name),
        "workflow": clean(record.workflow),
        "status": status,
        "user": clean(view.person),
        "submitted": f"{clock_text('%Y-%m-%d %H:%M:%S', view.submitted)} ({ago_text(view.submitted, now)})",
        "code": clean(f"{snapshot.commit[:12]} {head}{branch}{dirty}"),
    }
    if view.caretakers is not None and view.caretakers.by:
        facts["attended"] = clean(f"by {', '.join(view.caretakers.by)}")
    overrides = " ".join(f"--{name} {value}" for name, value in record.plan.overrides.items())
    if overrides:
        facts["variables"] = clean(overrides)
    return "".join(f"{name:<10} {value}\n" for name, value in facts.items()) + "\n"


def _job_row(job: JobView, now: float) -> tuple[str, ...]:
    time_ = "-"
    if job.started and job.status is not JobStatus.REUSED:
        time_ = since_text(job.started, job.ended or now)
    note = job_note(job.reason, job.reused_from or "")
    return (job.workflow, job.status, job.host or "-", str(job.attempt) if job.attempt else "-", time_, note)
