"""`dstack artifacts ls`: list the artifacts of a run."""

from __future__ import annotations

import sys
from typing import Annotated

from dstack.app.queries.run_artifacts import JobArtifacts, artifacts_of
from dstack.cli.arguments import RUN_ARGUMENT, WORKFLOW_ARGUMENT
from dstack.cli.command_session import open_session
from dstack.errors import DamagedObjectError
from dstack.model import EntryKind, Manifest
from dstack.ui.tables import Column, size_text, table

_FILES = (
    Column(title="WORKFLOW", floor=8),
    Column(title="PATH", floor=20),
    Column(title="SIZE", right=True),
)


def ls(
    run: Annotated[str | None, RUN_ARGUMENT] = None, workflow: Annotated[str | None, WORKFLOW_ARGUMENT] = None
) -> None:
    """List the files that the jobs of a run left behind.

    RUN may be the beginning of a name; without it, or as `-`, it is your own last run on this machine.
    """
    session = open_session()
    record = session.require_run(run)
    damages: list[DamagedObjectError] = []
    available = list(artifacts_of(session.bucket, session.keys, record, workflow, damages=damages, notify=session.tell))
    rows = [
        (each.job.workflow, _path(each, entry.path, entry.kind, entry.target), size_text(entry.size))
        for each in available
        for entry in each.manifest.entries
        if entry.kind is not EntryKind.FOLDER or _empty(each.manifest, entry.path)
    ]
    if rows:
        sys.stdout.write(table(_FILES, rows, sys.stdout))
    # After the table: whole artifacts are listed beside damaged ones.
    if damages:
        raise damages[0]
    if not rows:
        sys.stderr.write(f"{record.name} left nothing behind\n")


def _path(artifacts: JobArtifacts, path: str, kind: EntryKind, target: str) -> str:
    mark = " (partial)" if artifacts.manifest.partial else ""
    if kind is EntryKind.FOLDER:
        return f"{path}/{mark}"
    return f"{path} -> {target}{mark}" if kind is EntryKind.LINK else f"{path}{mark}"


def _empty(manifest: Manifest, folder: str) -> bool:
    return not any(entry.path.startswith(f"{folder}/") for entry in manifest.entries)
