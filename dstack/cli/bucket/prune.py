"""`dstack prune`: remove old results, logs and records from the bucket."""

from __future__ import annotations

import os
import sys
import time
from typing import Annotated

import typer

from dstack.app.maintenance.bucket_access import store_time
from dstack.app.maintenance.bucket_probe import writable
from dstack.app.maintenance.bucket_survey import survey
from dstack.app.maintenance.prune_plan import GenerationToPrune, PrunePlan, Pruner, PruneReport, RunToPrune
from dstack.cli.command_session import open_session
from dstack.core.retention import PrunePolicy
from dstack.errors import UsageError
from dstack.session.coordinator_parts import open_housekeeper
from dstack.session.session import Session
from dstack.ui.tables import Column, size_text, table
from dstack.ui.times import ago_text

_GOING = (
    Column(title="WHAT", floor=8),
    Column(title="WORKFLOW", floor=8),
    Column(title="RUN", floor=8),
    Column(title="LAST USED", floor=8),
    Column(title="SIZE", right=True),
    Column(title="WHY", floor=8),
)


def prune(
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="AGE", help="What nobody made or used for 30d, 12h, …")
    ] = None,
    keep: Annotated[
        int | None, typer.Option("--keep", metavar="N", min=0, help="Never the newest N results of each workflow.")
    ] = None,
    max_size: Annotated[
        str | None, typer.Option("--max-size", metavar="SIZE", help="The oldest, until the project has at most 50GB, …")
    ] = None,
    untagged: Annotated[
        bool, typer.Option("--untagged", help="Only what no tag names (tagged results stay anyway).")
    ] = (False),
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, only show what would go.")] = False,
) -> None:
    """Remove old results, logs and records of this project from the bucket; shows what would go unless --yes.

    What a run that has not ended waits for or takes as input stays, whatever the options say. A pruned result is made
    again when a run needs it. Without an option: only what earlier prunes left half done, and what nothing refers to.
    """
    policy = _policy(older_than, keep, max_size, untagged=untagged)
    session = open_session()
    with open_housekeeper(session) as keeper:
        # First of all: with tags that this version cannot read, nothing may be called removable.
        keeper.refuse_tags()
        found = survey(session.bucket, session.keys)
        # Ages are told by the clock of the store, which also dated the objects.
        now = store_time(session.bucket, os.urandom(16).hex(), own=time.time())
        plan = keeper.plan(found, policy, now=now)
        _show(plan, policy, now)
        if yes:
            _remove(session, keeper, plan, now)
        elif plan.objects:
            print("nothing was removed: this is what --yes removes")


def _remove(session: Session, keeper: Pruner, plan: PrunePlan, now: float) -> None:
    writable(session.bucket)
    if plan.objects:
        print(_done(keeper.prune(plan, say=lambda text: print(text, file=sys.stderr, flush=True))))
    aborted = session.storage.abort_uploads(session.keys.root, now=now)
    if aborted:
        print(f"ended {_counted(aborted, 'interrupted upload')}")


def _policy(older_than: str | None, keep: int | None, max_size: str | None, *, untagged: bool) -> PrunePolicy:
    from dstack.project import quantities

    age = quantities.parse_duration(older_than) if older_than is not None else None
    if older_than is not None and age is None:
        raise UsageError(f"--older-than: {older_than!r} is no age", hint="write 30d, 12h or 1d12h")
    size = quantities.parse_size(max_size) if max_size is not None else None
    # The pattern of sizes wants a unit; a bare 0 needs none.
    if max_size is not None and size is None and max_size.strip() != "0":
        raise UsageError(f"--max-size: {max_size!r} is no size", hint="write 50GB, 800MB or 1TiB")
    limit = (size or 0) if max_size is not None else None
    return PrunePolicy(older_than=age, keep=keep, max_size=limit, untagged=untagged)


def _show(plan: PrunePlan, policy: PrunePolicy, now: float) -> None:
    rows = [_row(each, now) for each in plan.generations] + [_run_row(each, now) for each in plan.runs]
    if rows:
        sys.stdout.write(table(_GOING, rows, sys.stdout) + "\n")
    loose = [f"{len(plan.code)} lists of code"] * bool(plan.code)
    loose += [f"{len(plan.heartbeats)} signs of life of what ended long ago"] * bool(plan.heartbeats)
    results = sum(each.result for each in plan.generations)
    parts = [f"{_counted(results, 'result')}"] * bool(results)
    others = len(plan.generations) - results
    parts += [_counted(others, "job without a result", "jobs without a result")] * bool(others)
    parts += [f"the records of {_counted(len(plan.runs), 'run')}"] * bool(plan.runs)
    if plan.objects:
        print(f"{', '.join(parts + loose)}: {size_text(plan.bytes)} in {_counted(plan.objects, 'object')}")
    else:
        print("nothing to remove")
    if plan.held:
        print(f"{_counted(plan.held, 'job')} of runs that have not ended stay{'s' * (plan.held == 1)}")
    if policy.empty:
        print("say what may go: --older-than 30d, --keep 3, --max-size 50GB, --untagged")


def _row(each: GenerationToPrune, now: float) -> tuple[str, ...]:
    what = "result" if each.result else "logs" if each.objects else "-"
    used = ago_text(each.modified, now)
    return (what, each.workflow or "-", each.run or "-", used, size_text(each.bytes), each.reason)


def _run_row(each: RunToPrune, now: float) -> tuple[str, ...]:
    used = ago_text(each.modified, now)
    reason = "too old" if each.name else "a prune began it"
    return ("run", each.workflow or "-", each.name or each.id, used, size_text(each.bytes), reason)


def _done(done: PruneReport) -> str:
    text = f"removed {_counted(done.objects, 'object')}"
    if done.used:
        text += f"; {_counted(done.used, 'job')} stayed: somebody began to use {'it' if done.used == 1 else 'them'}"
    return text


def _counted(number: int, noun: str, plural: str = "") -> str:
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
