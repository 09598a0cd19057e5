"""`dstack artifacts`: what jobs left behind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from dstack.app.overview import attempt_of, job_of, run_view
from dstack.app.views import JobView
from dstack.cli import wiring
from dstack.cli.arguments import RUN, WORKFLOW
from dstack.cli.lazy import Lazy, LazyGroup
from dstack.core import manifests
from dstack.core.keys import AttemptKeys
from dstack.core.lifecycle import ENDED
from dstack.core.records import RunRecord
from dstack.errors import NotFoundError, SnapshotError, UsageError
from dstack.model import EntryKind, Manifest
from dstack.project.locate import FOLDER
from dstack.ui.tables import Column, size_text, table
from dstack.ui.terminal import clean_lines

_FILES = (
    Column(title="WORKFLOW", floor=8),
    Column(title="PATH", floor=20),
    Column(title="SIZE", right=True),
)


Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What one job of a run left behind."""

    job: JobView
    attempt: AttemptKeys
    manifest: Manifest


def ls(run: Annotated[str | None, RUN] = None, workflow: Annotated[str | None, WORKFLOW] = None) -> None:
    """List the files that the jobs of a run left behind.

    RUN may be the beginning of a name; without it, or as `-`, it is your own last run on this machine.
    """
    session = wiring.open_session()
    record = session.require_run(run)
    found = list(_left(session, record, workflow))
    rows = [
        (left.job.workflow, _path(left, entry.path, entry.kind, entry.target), size_text(entry.size))
        for left in found
        for entry in left.manifest.entries
        if entry.kind is not EntryKind.FOLDER or _empty(left.manifest, entry.path)
    ]
    if rows:
        sys.stdout.write(table(_FILES, rows, sys.stdout))
        return
    sys.stderr.write(f"{record.name} left nothing behind\n")


def _path(left: Left, path: str, kind: EntryKind, target: str) -> str:
    mark = " (partial)" if left.manifest.partial else ""
    if kind is EntryKind.FOLDER:
        return f"{path}/{mark}"
    return f"{path} -> {target}{mark}" if kind is EntryKind.LINK else f"{path}{mark}"


def _empty(manifest: Manifest, folder: str) -> bool:
    return not any(entry.path.startswith(f"{folder}/") for entry in manifest.entries)


def pull(
    run: Annotated[str | None, RUN] = None,
    workflow: Annotated[str | None, WORKFLOW] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Folder to write to; default: RUN in the current one."),
    ] = None,
) -> None:
    """Fetch what the jobs of a run left behind, each byte verified; pulling again goes on where it ended.

    With several jobs, each has its own folder below DIR.

    RUN may be the beginning of a name; without it, or as `-`, it is your own last run on this machine.
    """
    from dstack.cli.reading import read_pinned

    session = wiring.open_session()
    record = session.require_run(run)
    found = list(_left(session, record, workflow))
    if not found:
        raise NotFoundError(f"{record.name} left nothing behind", hint="`dstack show RUN` says what became of its jobs")
    target = output or Path(record.name)
    if output is None:
        _hide_from_git(target)
    with read_pinned(session, [left.attempt for left in found]):
        for left in found:
            folder = target if workflow is not None or len(record.plan.jobs) == 1 else target / left.job.workflow
            _pull(session, left, folder)
    if _is_code(session, target):
        say = f"{target} lies in the project: the next run takes it for code; add it to .gitignore\n"
        sys.stderr.write(clean_lines(say))


def _hide_from_git(folder: Path) -> None:
    """A folder that nobody named would else be code of the project: shipped, and a reason to run everything again."""
    # Where the folder cannot be written, the fetch that follows says why.
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").open("x", encoding="ascii").close()
        (folder / ".gitignore").write_text("# fetched by dstack artifacts pull\n*\n", encoding="ascii")


def _is_code(session: wiring.Session, folder: Path) -> bool:
    """Whether what lies in the folder is code of the project for the next run."""
    from dstack.adapters.git_place import ignores

    root, place = session.root.resolve(), folder.resolve()
    if not place.is_relative_to(root) or place.is_relative_to(root / FOLDER):
        return False
    with suppress(SnapshotError):
        # A file in it is asked for: the folder may have a .gitignore of its own, which says nothing of the folder.
        return not ignores(root, place / "pulled")
    return False


def _pull(session: wiring.Session, left: Left, folder: Path) -> None:
    import asyncio

    from dstack.adapters.files import SafeFolder
    from dstack.app import collect

    progress = _progress(left.job.workflow)
    with SafeFolder(folder) as place:
        asyncio.run(collect.pull(session.bucket, left.attempt, left.manifest, place, progress=progress))
    files = [entry for entry in left.manifest.entries if entry.kind is not EntryKind.FOLDER]
    mark = ", partial" if left.manifest.partial else ""
    noun = "file" if len(files) == 1 else "files"
    total = size_text(sum(entry.size for entry in files))
    print(f"{left.job.workflow}: {len(files)} {noun}, {total}{mark} in {folder}", flush=True)


def _progress(workflow: str) -> Progress | None:
    """Draws one line on a terminal's standard error, and nothing anywhere else."""
    from dstack.ui.live import bar
    from dstack.ui.tables import screen_width

    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        line = bar(workflow, done, total, min(100, screen_width(sys.stderr)) - 1)
        sys.stderr.write(f"\r\x1b[K{line}" if done < total else "\r\x1b[K")
        sys.stderr.flush()

    return show


def _left(session: wiring.Session, record: RunRecord, workflow: str | None) -> Iterator[Left]:
    """The jobs that have artifacts in the bucket; raises UsageError when the asked-for one has not ended."""
    view = run_view(session.bucket, session.keys, record)
    for job in (job_of(view, workflow),) if workflow else view.jobs:
        attempt = attempt_of(session.keys, job)
        body = session.bucket.get(attempt.manifest) if attempt else None
        if attempt is not None and body is not None:
            yield Left(job=job, attempt=attempt, manifest=manifests.decode(attempt.manifest, body))
        elif attempt is not None and session.bucket.get(f"{attempt.generation}tomb") is not None:
            sys.stderr.write(clean_lines(f"{job.workflow}: its artifacts were pruned; a run makes them again\n"))
        elif workflow and job.status not in ENDED:
            raise UsageError(
                f"{workflow} of {record.name} is {job.status}: its artifacts come when it has ended",
                hint=f"dstack logs -f {record.name} {workflow}",
            )


group = LazyGroup(
    "artifacts",
    {
        "ls": Lazy(target="dstack.cli.artifacts:ls", help="List the files that the jobs of a run left behind."),
        "pull": Lazy(target="dstack.cli.artifacts:pull", help="Fetch them into a folder, verified."),
    },
    about="List and fetch what jobs left behind.",
)
