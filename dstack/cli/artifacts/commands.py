"""`dstack artifacts`: what jobs left behind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from dstack.app.queries.runs import attempt_of, job_of, run_view
from dstack.app.queries.views import JobView
from dstack.app.transfer.committed_manifest import committed_manifest, was_pruned
from dstack.cli.arguments import RUN, WORKFLOW
from dstack.cli.command_session import open_session
from dstack.cli.lazy import Lazy, LazyGroup
from dstack.core.artifacts import manifests
from dstack.core.format.keys import AttemptKeys
from dstack.core.format.records import RunRecord
from dstack.core.lifecycle import ENDED, GOOD
from dstack.errors import DamagedObjectError, NotFoundError, SnapshotError, UsageError
from dstack.model import EntryKind, Fingerprint, Manifest
from dstack.project.locate import FOLDER
from dstack.session.session import Session
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
    session = open_session()
    record = session.require_run(run)
    damages: list[DamagedObjectError] = []
    found = list(_left(session, record, workflow, damages))
    rows = [
        (left.job.workflow, _path(left, entry.path, entry.kind, entry.target), size_text(entry.size))
        for left in found
        for entry in left.manifest.entries
        if entry.kind is not EntryKind.FOLDER or _empty(left.manifest, entry.path)
    ]
    if rows:
        sys.stdout.write(table(_FILES, rows, sys.stdout))
    if damages:
        raise damages[0]
    if not rows:
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
    from dstack.cli.artifacts.pinned_read import read_pinned

    session = open_session()
    record = session.require_run(run)
    damages: list[DamagedObjectError] = []
    found = list(_left(session, record, workflow, damages))
    if not found and damages:
        raise damages[0]
    if not found:
        raise NotFoundError(f"{record.name} left nothing behind", hint="`dstack show RUN` says what became of its jobs")
    target = output or Path(record.name)
    if output is None:
        _hide_from_git(target)
    with read_pinned(session, [left.attempt for left in found]):
        for left in found:
            folder = target if workflow is not None or len(record.plan.jobs) == 1 else target / left.job.workflow
            with _named(left.job, damages):
                _pull(session, left, folder)
    if _is_code(session, target):
        say = f"{target} lies in the project: the next run takes it for code; add it to .gitignore\n"
        sys.stderr.write(clean_lines(say))
    if damages:
        # The others are there, whole: what is damaged is told last, where it is seen.
        raise damages[0]


@contextmanager
def _named(job: JobView, damages: list[DamagedObjectError]) -> Iterator[None]:
    """What is damaged of a job goes to `damages`, with the command that makes it anew."""
    try:
        yield
    except DamagedObjectError as error:
        hint = f"make it anew: dstack run {job.workflow} --rerun"
        damages.append(DamagedObjectError(error.key, f"{job.workflow}: {error}", hint=hint))


def _hide_from_git(folder: Path) -> None:
    """A folder that nobody named would else be code of the project: shipped, and a reason to run everything again."""
    # Where the folder cannot be written, the fetch that follows says why.
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").open("x", encoding="ascii").close()
        (folder / ".gitignore").write_text("# fetched by dstack artifacts pull\n*\n", encoding="ascii")


def _is_code(session: Session, folder: Path) -> bool:
    """Whether what lies in the folder is code of the project for the next run."""
    from dstack.adapters.git.repository import ignores

    root, place = session.root.resolve(), folder.resolve()
    if not place.is_relative_to(root) or place.is_relative_to(root / FOLDER):
        return False
    with suppress(SnapshotError):
        # A file in it is asked for: the folder may have a .gitignore of its own, which says nothing of the folder.
        return not ignores(root, place / "pulled")
    return False


def _pull(session: Session, left: Left, folder: Path) -> None:
    import asyncio

    from dstack.adapters.artifact_folder import SafeFolder
    from dstack.app.transfer import artifacts

    progress = _progress(left.job.workflow)
    with SafeFolder(folder) as place:
        asyncio.run(artifacts.pull(session.bucket, left.attempt, left.manifest, place, progress=progress))
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


def _left(
    session: Session, record: RunRecord, workflow: str | None, damages: list[DamagedObjectError]
) -> Iterator[Left]:
    """The jobs that have artifacts in the bucket; those that should and have not go to `damages`.

    Raises UsageError when the asked-for one has not ended.
    """
    view = run_view(session.bucket, session.keys, record)
    for job in (job_of(view, workflow),) if workflow else view.jobs:
        attempt = attempt_of(session.keys, job)
        manifest = None
        with _named(job, damages):
            manifest = _manifest(session, job)
        if attempt is not None and manifest is not None:
            yield Left(job=job, attempt=attempt, manifest=manifest)
        elif workflow and job.status not in ENDED:
            raise UsageError(
                f"{workflow} of {record.name} is {job.status}: its artifacts come when it has ended",
                hint=f"dstack logs -f {record.name} {workflow}",
            )


def _manifest(session: Session, job: JobView) -> Manifest | None:
    """What the job left behind; None for nothing, or where that was pruned, which is said.

    Raises DamagedObjectError when it should be there and is not, or is not what was committed.
    """
    attempt = attempt_of(session.keys, job)
    if attempt is None:
        return None
    generation = session.keys.job(Fingerprint(job.fingerprint), job.generation)
    try:
        if job.status in GOOD:
            return committed_manifest(session.bucket, generation, attempt.number)
        body = session.bucket.get(attempt.manifest)
        return manifests.decode(attempt.manifest, body) if body is not None else None
    except DamagedObjectError:
        if not was_pruned(session.bucket, generation):
            raise
        sys.stderr.write(clean_lines(f"{job.workflow}: its artifacts were pruned; a run makes them again\n"))
        return None


group = LazyGroup(
    "artifacts",
    {
        "ls": Lazy(
            target="dstack.cli.artifacts.commands:ls", help="List the files that the jobs of a run left behind."
        ),
        "pull": Lazy(target="dstack.cli.artifacts.commands:pull", help="Fetch them into a folder, verified."),
    },
    about="List and fetch what jobs left behind.",
)
