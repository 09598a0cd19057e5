"""`dstack ps`: the newest runs of the project, by the bucket alone. No host is asked."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from dstack.adapters.bucket.remote_errors import redact_url
from dstack.app.queries.run_views import RunView
from dstack.app.queries.runs import own_run_ids, run_ids, views_of
from dstack.cli.command_session import open_session
from dstack.cli.runs.table_notes import left_alone, out_of_sight
from dstack.core.format.keys import ProjectKeys
from dstack.core.lifecycle import GOOD_STATES
from dstack.errors import BucketError
from dstack.model import JobStatus, RunId
from dstack.session.session import Session
from dstack.ui.tables import Column, brief, notes, table
from dstack.ui.terminal import clean
from dstack.ui.times import age_text, duration_text

DEFAULT_RUN_COUNT = 20
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


def ps(
    mine: Annotated[bool, typer.Option("--mine", help="Only your own, made on this machine.")] = False,
    everything: Annotated[bool, typer.Option("-a", "--all", help="All runs.")] = False,
    number: Annotated[int, typer.Option("-n", metavar="N", min=1, help="The newest N runs.")] = DEFAULT_RUN_COUNT,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> int:
    """List the newest runs of this project, everybody's, newest first.

    TIME is how long a run took, or has run so far. No host is asked.
    """
    session = open_session()
    limit = None if everything else number
    # One run more than is shown tells whether there are older ones.
    ids = _chosen(session, None if limit is None else limit + 1, mine=mine)
    faults: dict[RunId, BucketError] = {}
    shown = list(
        views_of(
            session.bucket,
            session.keys,
            ids[:limit],
            look=session.look,
            at_once=session.storage.reads_at_once,
            faults=faults,
        )
    )
    if as_json:
        from dstack.ui.jsonout import runs_json

        print(runs_json(shown))
    elif shown or faults:
        _show_runs(shown, faults)
    else:
        sys.stderr.write(notes(_none(session, mine=mine), sys.stderr))
    if not as_json and len(ids) > len(shown) + len(faults) and limit is not None:
        sys.stderr.write(f"older ones: `dstack ps{' --mine' * mine} -n {10 * number}`, or --all\n")
    for run, error in faults.items():
        hint = [f"  {error.hint}"] if error.hint else []
        sys.stderr.write(notes([f"run {run} cannot be shown: {error}", *hint], sys.stderr))
    return max((error.exit_code for error in faults.values()), default=0)


def _show_runs(shown: Sequence[RunView], faults: Mapping[RunId, BucketError]) -> None:
    """The table of runs, with damaged runs at the end, and notes that need a person's eye."""
    now = time.time()
    damaged = [(run, "-", "damaged", *["-"] * 5) for run in faults]
    sys.stdout.write(table(_RUNS, [*(_run_row(view, now) for view in shown), *damaged], sys.stdout))
    sys.stdout.write(notes(not_begun(shown), sys.stdout))
    for view in shown:
        sys.stdout.write(notes((*out_of_sight(view, now), *left_alone(view, now)), sys.stdout))


def _none(session: Session, *, mine: bool) -> list[str]:
    """Lines for a project without runs: the searched place, and a place with runs, because a new remote renames a
    project."""
    place = f"of {session.name} in {redact_url(session.settings.bucket)}"
    if mine:
        return [f"no runs of yours yet {place}"]
    lines = [f"no runs yet {place}; `dstack run` lists the workflows"]
    other = session.folder_name
    if other and run_ids(session.bucket, ProjectKeys.of(other), 1):
        lines.append(f"runs of {other} are there: `project: {other}` in .dstack/config.yaml shows them")
    return lines


def _chosen(session: Session, limit: int | None, *, mine: bool) -> list[RunId]:
    if not mine:
        return run_ids(session.bucket, session.keys, limit)
    from dstack.adapters.process_identity import machine_name, user_name

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
    good = sum(job.status in GOOD_STATES for job in view.jobs)
    if good == total and all(job.status is JobStatus.REUSED for job in view.jobs):
        return f"{total} reused"
    return f"{good}/{total}"


def not_begun(shown: Sequence[RunView]) -> list[str]:
    """Why attended runs have not begun: a line for each reason, with the runs of this reason."""
    reasons: dict[str, list[str]] = {}
    for view in shown:
        if view.alone or view.stage not in (JobStatus.QUEUED, JobStatus.WAITING):
            continue
        texts = (clean(job.reason).strip() for job in view.jobs if job.status is view.stage)
        reason = next(filter(None, texts), "")
        if reason:
            reasons.setdefault(brief(reason), []).append(view.run)
    if not reasons:
        return []
    # Imported here on purpose: most lists have no such run.
    from dstack.core.placement import names_text

    return [f"{names_text(runs)}: {reason}" for reason, runs in reasons.items()]
