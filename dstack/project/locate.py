"""Finds the project: the nearest folder upwards with a `.dstack/` folder."""

from __future__ import annotations

from pathlib import Path

from dstack.errors import UsageError

DSTACK_FOLDER = ".dstack"


def find_project(start: Path, *, home: Path | None = None) -> Path:
    """The project folder around `start`.

    `~/.dstack` also holds the user's own settings and state, so the home folder counts only with workflows. Raises
    UsageError when no folder up to the root holds `.dstack/`.
    """
    begin = start.absolute()
    for folder in (begin, *begin.parents):
        if (folder / DSTACK_FOLDER).is_dir() and (not _same(folder, home) or _has_workflows(folder)):
            return folder
    raise UsageError(
        f"no {DSTACK_FOLDER} folder in {begin} or any folder above it",
        hint="go to your project, or make one here with `dstack init`",
    )


def _same(folder: Path, home: Path | None) -> bool:
    return home is not None and folder.resolve() == home.resolve()


def _has_workflows(folder: Path) -> bool:
    inside = folder / DSTACK_FOLDER
    return (inside / "workflows").is_dir() or any((inside / f"workflows.{end}").exists() for end in ("yaml", "yml"))
