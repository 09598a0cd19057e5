"""`dstack ps`, `show` and `why`: what the bucket says of runs. None of them touches a host."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated

import typer

from dstack.adapters.bucket.remote_errors import redacted
from dstack.app.queries.runs import job_of, own_run_ids, run_ids, run_view, views_of
from dstack.app.queries.views import JobView, RunView, Tended
from dstack.cli.arguments import RUN, WORKFLOW
from dstack.cli.command_session import open_session
from dstack.core.format.keys import ProjectKeys
from dstack.core.format.records import RunRecord
from dstack.core.lifecycle import GOOD
from dstack.core.sightings import describe
from dstack.errors import BucketError
from dstack.model import JobStatus, RunId, WorkflowName
from dstack.session.session import Session
from dstack.ui.tables import Column, brief, notes, styled, table, use_colour
from dstack.ui.terminal import clean, clean_lines
from dstack.ui.times import age_text, ago_text, clock_text, duration_text, silence_text, since_text

RECENT = 20
_RUNS = (
    Column(title="RUN", floor=20),
    Column(title="WORKFLOW", floor=8),
    Column(title="STATUS", floor=9, styled=True),
    Column(title="JOBS", floor=4),
    Column(title="WHO", floor=3),
    Column(title="WHERE", floor=5),
    Column(title="TIME", right=True, floor=4),
    Column(title="AGE", right=True, floor=3),
)
_JOBS = (
    Column(title="WORKFLOW", floor=8),
    Column(title="STATUS", floor=9, styled=True),
    Column(title="HOST"),
    Column(title="ATTEMPT", right=True),
    Column(title="TIME", right=True, floor=7),
    Column(title="NOTE", floor=16, wraps=True),
)


def ps(
    mine: Annotated[bool, typer.Option("--mine", help="Only your own, made on this machine.")] = False,
    everything: Annotated[bool, typer.Option("-a", "--all", help="All runs.")] = False,
    number: Annotated[int, typer.Option("-n", metavar="N", min=1, help="The newest N runs.")] = RECENT,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> int:
    """List the newest runs of this project, everybody's, newest first.

    TIME is how long a run took, or has run so far. No host is asked.
    """
    session = open_session()
    limit = None if everything else number
    found = _chosen(session, None if limit is None else limit + 1, mine=mine)
    faults: dict[RunId, BucketError] = {}
    shown = list(
        views_of(session.bucket, session.keys, found[:limit], look=session.look, at_once=session.at_once, faults=faults)
    )
    if as_json:
        from dstack.ui.jsonout import runs_json

        print(runs_json(shown))
    elif shown or faults:
        _show_runs(shown, faults)
    else:
        sys.stderr.write(notes(_none(session, mine=mine), sys.stderr))
    if not as_json and len(found) > len(shown) + len(faults) and limit is not None:
        sys.stderr.write(f"older ones: `dstack ps{' --mine' * mine} -n {10 * number}`, or --all\n")
    for run, error in faults.items():
        hint = [f"  {error.hint}"] if error.hint else []
        sys.stderr.write(notes([f"run {run} cannot be shown: {error}", *hint], sys.stderr))
    return max((error.exit_code for error in faults.values()), default=0)


def _show_runs(shown: Sequence[RunView], faults: Mapping[RunId, BucketError]) -> None:
    """The table of runs, those whose records make no sense below the others, and what needs a person's eye."""
    now = time.time()
    damaged = [(run, "-", "damaged", *["-"] * 5) for run in faults]
    sys.stdout.write(table(_RUNS, [*(_run_row(view, now) for view in shown), *damaged], sys.stdout))
    sys.stdout.write(notes(not_begun(shown), sys.stdout))
    for view in shown:
        sys.stdout.write(notes((*out_of_sight(view, now), *left_alone(view, now)), sys.stdout))


def _none(session: Session, *, mine: bool) -> list[str]:
    """That there are no runs, where that was looked for, and where there are some: a new remote renames a project."""
    place = f"of {session.name} in {redacted(session.settings.bucket)}"
    if mine:
        return [f"no runs of yours yet {place}"]
    told = [f"no runs yet {place}; `dstack run` lists the workflows"]
    other = session.folder_name
    if other and run_ids(session.bucket, ProjectKeys.of(other), 1):
        told.append(f"runs of {other} are there: `project: {other}` in .dstack/config.yaml shows them")
    return told


def _chosen(session: Session, limit: int | None, *, mine: bool) -> list[RunId]:
    if not mine:
        return run_ids(session.bucket, session.keys, limit)
    from dstack.adapters.identity import machine_name, user_name

    return own_run_ids(session.bucket, session.keys, user_name(), machine_name(), limit)


def _run_row(view: RunView, now: float) -> tuple[str, ...]:
    where = ", ".join(view.hosts) or "-"
    time_ = duration_text(took) if (took := view.took(now)) is not None else "-"
    return (
        view.run,
        view.workflow,
        view.stage,
        _jobs_text(view),
        view.person,
        where,
        time_,
        age_text(view.submitted, now),
    )


def _jobs_text(view: RunView) -> str:
    """`2/3`, `3 reused`."""
    total = len(view.jobs)
    good = sum(job.status in GOOD for job in view.jobs)
    if good == total and all(job.status is JobStatus.REUSED for job in view.jobs):
        return f"{total} reused"
    return f"{good}/{total}"


def not_begun(shown: Sequence[RunView]) -> list[str]:
    """Why runs have not begun that somebody looks after: one line for each reason, with the runs that have it."""
    reasons: dict[str, list[str]] = {}
    for view in shown:
        if view.alone or view.stage not in (JobStatus.QUEUED, JobStatus.WAITING):
            continue
        told = (clean(job.reason).strip() for job in view.jobs if job.status is view.stage)
        reason = next(filter(None, told), "")
        if reason:
            reasons.setdefault(brief(reason), []).append(view.run)
    if not reasons:
        return []
    # Imported here on purpose: most lists have no such run.
    from dstack.core.placement import few

    return [f"{few(runs)}: {reason}" for reason, runs in reasons.items()]


def out_of_sight(view: RunView, now: float) -> list[str]:
    """Jobs of which nobody hears anything just now, since when, and what only a person can know."""
    lines = []
    going_on = view.tended is not None and bool(view.tended.standby)
    if view.tended is not None and view.tended.by and going_on:
        lines.append(f"{view.run}: {_takeover(view.tended, now)}")
    for job in map(_brief, view.jobs):
        if job.lost:
            lines.append(f"{view.run}: {job.workflow}: {lost_text(job.lost)}: dstack stop {view.handle}")
        where = f"{view.run}: {job.workflow} on {job.host}"
        if job.sighting and not going_on:
            seen = describe(job.sighting, job.host, job.account, f"dstack attach {view.handle}")
            lines.append(f"{view.run}: {job.workflow}: {seen}")
        elif job.unreachable:
            told = f"{where}: unreachable since {clock_text('%H:%M', job.unreachable)}"
            lines.append(f"{told}; if it will not be back: dstack lost {view.handle} {job.workflow}")
        elif job.unheard and not (view.alone or going_on):
            lines.append(f"{where}: {silence_text(job.owner, job.unheard, now)}")
    return lines


def _brief(job: JobView) -> JobView:
    """The job with no more of what hosts and claims say than a note shows."""
    return replace(job, host=brief(job.host), account=brief(job.account), owner=brief(job.owner))


def _takeover(tended: Tended, now: float) -> str:
    """`no sign of alice@laptop for 50 s; gpu-1 stands by and goes on with it within 2 min`, as long as that is so."""
    # Imported here on purpose: most lists have no such run.
    from dstack.app.protocol.lease import TAKEOVER
    from dstack.core.placement import few

    minutes = math.ceil((tended.seen + TAKEOVER - now) / 60)
    stand, go, have = ("stands", "goes", "has") if len(tended.standby) == 1 else ("stand", "go", "have")
    soon = f" and {go} on with it within {minutes} min" if minutes > 0 else f", but {have} not gone on with it yet"
    silence = silence_text(brief(tended.last), tended.seen, now)
    return f"{silence}; {few([*map(brief, tended.standby)])} {stand} by{soon}"


def lost_text(attempts: tuple[int, ...]) -> str:
    """`attempt 1 was called lost and may still run`."""
    several = len(attempts) > 1
    numbers = ", ".join(map(str, attempts))
    return f"attempt{'s' * several} {numbers} {'were' if several else 'was'} called lost and may still run"


def left_alone(view: RunView, now: float) -> list[str]:
    """That nobody looks after a run, what may wait on which hosts, and what to do; nothing where somebody does."""
    if not view.alone or view.tended is None:
        return []
    if view.tended.standby:
        return [f"{view.run}: {_takeover(view.tended, now)}"]
    told = "nobody looks after it"
    if view.tended.seen:
        told = silence_text(brief(view.tended.last), view.tended.seen, now)
    if view.tended.over:
        told = f"the credentials that {brief(view.tended.last)} had been lent ended {ago_text(view.tended.over, now)}"
    waiting = Counter((job.host, job.account) for job in map(_brief, view.jobs) if job.left)
    lines = [f"{view.run}: {told}: dstack attach {view.handle}"]
    for (host, account), count in waiting.items():
        noun = "1 result waits" if count == 1 else f"{count} results wait"
        whose = f" for account {account}" if account else ""
        lines.append(f"  {noun} on {host}{whose}, or {'is' if count == 1 else 'are'} still being made there")
    return lines


def show(
    run: Annotated[str | None, RUN] = None,
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
    """As it is into a pipe, for `git apply`; without control characters to a terminal."""
    if sys.stdout.isatty():
        text = body.decode("utf-8", "replace")
        sys.stdout.write(clean_lines(text.expandtabs()))
    else:
        sys.stdout.buffer.write(body)


def _head(record: RunRecord, view: RunView, now: float) -> str:
    """The facts of a run, one a line."""
    snapshot = record.snapshot
    head = f"on {snapshot.head[:12]}" if snapshot.head else "no commit yet"
    branch = f" ({snapshot.branch})" if snapshot.branch else ""
    dirty = ", uncommitted changes" if snapshot.dirty else ""
    status = styled(view.stage) if use_colour(sys.stdout) else view.stage.value
    facts = {
        "run": clean(record.name),
        "workflow": clean(record.workflow),
        "status": status,
        "user": clean(view.person),
        "submitted": f"{clock_text('%Y-%m-%d %H:%M:%S', view.submitted)} ({ago_text(view.submitted, now)})",
        "code": clean(f"{snapshot.commit[:12]} {head}{branch}{dirty}"),
    }
    if view.tended is not None and view.tended.by:
        facts["attended"] = clean(f"by {', '.join(view.tended.by)}")
    overrides = " ".join(f"--{name} {value}" for name, value in record.plan.overrides.items())
    if overrides:
        facts["variables"] = clean(overrides)
    return "".join(f"{name:<10} {value}\n" for name, value in facts.items()) + "\n"


def _job_row(job: JobView, now: float) -> tuple[str, ...]:
    time_ = "-"
    if job.started and job.status is not JobStatus.REUSED:
        time_ = since_text(job.started, job.ended or now)
    note = f"from {job.reused_from}" if job.reused_from else job.reason
    return (job.workflow, job.status, job.host or "-", str(job.attempt) if job.attempt else "-", time_, note)


def why(run: Annotated[str | None, RUN] = None, workflow: Annotated[str | None, WORKFLOW] = None) -> None:
    """Say for each job of a run (or for one) why it ran, by what differs from earlier jobs, or why it was reused.

    RUN may be the beginning of a name; without it, or as `-`, it is your own last run on this machine.
    """
    from dstack.app.queries.explanation import Explainer

    session = open_session()
    record = session.require_run(run)
    view = run_view(session.bucket, session.keys, record, look=session.look)
    explainer = Explainer(session.bucket, session.keys, record, view)
    names = [job_of(view, workflow).workflow] if workflow else [job.workflow for job in view.jobs]
    for name in names:
        told = explainer.explain(WorkflowName(name))
        print(clean(f"{name}: {told.verdict}"))
        for line in told.differences:
            print(clean(f"  {line}"))
        job = job_of(view, name)
        if job.status is JobStatus.QUEUED and job.fingerprint:
            print(clean(f"  {job.status}: {job.reason}"))
