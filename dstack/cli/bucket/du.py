"""`dstack du`: the size of the project in the bucket."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dstack.app.maintenance.bucket_survey import survey
from dstack.cli.command_session import open_session
from dstack.ui.tables import Column, size_text, table
from dstack.ui.terminal import clean

_SORTS = (
    Column(title="WHAT", floor=9),
    Column(title="SIZE", right=True),
    Column(title="OBJECTS", right=True),
)
_WORKFLOWS = (
    Column(title="WORKFLOW", floor=8),
    Column(title="SIZE", right=True),
    Column(title="ARTIFACTS", right=True),
    Column(title="LOGS", right=True),
    Column(title="RESULTS", right=True),
    Column(title="OBJECTS", right=True),
)


def du(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Show what this project takes up in the bucket: by kind and by workflow, the biggest first."""
    from dstack.app.maintenance.disk_usage import weigh

    session = open_session()
    contents = survey(session.bucket, session.keys)
    weights = weigh(session.bucket, contents)
    if as_json:
        from dstack.ui.jsonout import weights_json

        print(weights_json(weights))
        return
    if not contents.sorts:
        print(clean(f"nothing of {session.name} is in the bucket"))
        return
    rows = [(each.what, size_text(each.bytes), str(each.objects)) for each in weights.sorts]
    sys.stdout.write(table(_SORTS, [*rows, ("all", size_text(contents.bytes), str(weights.objects))], sys.stdout))
    if weights.workflows:
        print()
        lines = [
            (
                each.workflow or "-",
                size_text(each.bytes),
                size_text(each.artifacts),
                size_text(each.logs),
                str(each.results),
                str(each.objects),
            )
            for each in weights.workflows
        ]
        sys.stdout.write(table(_WORKFLOWS, lines, sys.stdout))
    print()
    print(_freeable(sum(each.bytes for each in contents.generations.values()) - weights.used, weights.used))


def _freeable(free: int, used: int) -> str:
    if free <= 0:
        return f"nothing can be freed: {size_text(used)} is of runs that have not ended" if used else "nothing to free"
    held = f"; {size_text(used)} is of runs that have not ended" if used else ""
    return f"`dstack prune` with --older-than, --keep or --max-size can free up to {size_text(free)}{held}"
