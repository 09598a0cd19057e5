"""`dstack artifacts pull`: fetch the artifacts of a run into a folder, verified."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dstack.app.queries.run_artifacts import JobArtifacts, artifacts_of, noting_damage
from dstack.cli.arguments import RUN_ARGUMENT, WORKFLOW_ARGUMENT
from dstack.cli.command_session import open_session
from dstack.errors import DamagedObjectError, NotFoundError, SnapshotError
from dstack.model import EntryKind
from dstack.project.locate import DSTACK_FOLDER
from dstack.session.session import Session
from dstack.ui.tables import size_text
from dstack.ui.terminal import clean_lines

if TYPE_CHECKING:
    from dstack.app.transfer.byte_streams import Progress


def pull(
    run: Annotated[str | None, RUN_ARGUMENT] = None,
    workflow: Annotated[str | None, WORKFLOW_ARGUMENT] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Folder to write to; default: RUN in the current one."),
    ] = None,
) -> None:
    """Fetch what the jobs of a run left behind, each byte verified; pulling again goes on where it ended.

    With several jobs, each has its own folder below DIR.

    RUN may be the beginning of a name; without it, or as `-`, it is your own last run on this machine.
    """
    from dstack.session.coordinator_parts import read_pinned

    session = open_session()
    record = session.require_run(run)
    damages: list[DamagedObjectError] = []
    available = list(artifacts_of(session.bucket, session.keys, record, workflow, damages=damages, notify=session.tell))
    if not available and damages:
        raise damages[0]
    if not available:
        raise NotFoundError(f"{record.name} left nothing behind", hint="`dstack show RUN` says what became of its jobs")
    target = output or Path(record.name)
    if output is None:
        _hide_from_git(target)
    with read_pinned(session, [each.attempt for each in available]):
        for each in available:
            folder = target if workflow is not None or len(record.plan.jobs) == 1 else target / each.job.workflow
            with noting_damage(each.job, damages):
                _pull(session, each, folder)
    if _is_code(session, target):
        say = f"{target} lies in the project: the next run takes it for code; add it to .gitignore\n"
        sys.stderr.write(clean_lines(say))
    if damages:
        # The others are there, whole: what is damaged is told last, where it is seen.
        raise damages[0]


def _hide_from_git(folder: Path) -> None:
    """Hide a folder named by the command itself: else the fetched files would be code of the next run, and everything
    would run again."""
    # Where the folder cannot be written, the fetch that follows says why.
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        # Exclusive: a .gitignore of the user's stays.
        (folder / ".gitignore").open("x", encoding="ascii").close()
        (folder / ".gitignore").write_text("# fetched by dstack artifacts pull\n*\n", encoding="ascii")


def _is_code(session: Session, folder: Path) -> bool:
    """Whether the files of the folder are code of the project for the next run."""
    from dstack.adapters.git.repository import is_ignored

    root, place = session.root.resolve(), folder.resolve()
    if not place.is_relative_to(root) or place.is_relative_to(root / DSTACK_FOLDER):
        return False
    with suppress(SnapshotError):
        # A file in it is asked for: the folder may have a .gitignore of its own, which says nothing of the folder.
        return not is_ignored(root, place / "pulled")
    return False


def _pull(session: Session, source: JobArtifacts, folder: Path) -> None:
    import asyncio

    from dstack.adapters.artifact_folder import SafeFolder
    from dstack.app.transfer import artifacts

    progress = _progress(source.job.workflow)
    with SafeFolder(folder) as place:
        asyncio.run(artifacts.pull(session.bucket, source.attempt, source.manifest, place, progress=progress))
    files = [entry for entry in source.manifest.entries if entry.kind is not EntryKind.FOLDER]
    mark = ", partial" if source.manifest.partial else ""
    noun = "file" if len(files) == 1 else "files"
    total = size_text(sum(entry.size for entry in files))
    print(f"{source.job.workflow}: {len(files)} {noun}, {total}{mark} in {folder}", flush=True)


def _progress(workflow: str) -> Progress | None:
    """A function to draw a progress bar on standard error; None where standard error is no terminal."""
    from dstack.ui.live import bar
    from dstack.ui.tables import screen_width

    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        # The last column stays free: behind a wrapped line the carriage return comes back to the second row only.
        line = bar(workflow, done, total, min(100, screen_width(sys.stderr)) - 1)
        sys.stderr.write(f"\r\x1b[K{line}" if done < total else "\r\x1b[K")
        sys.stderr.flush()

    return show
