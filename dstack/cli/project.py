"""`dstack check` and `dstack init`: the files of the project itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dstack.cli import wiring
from dstack.errors import ConfigError, Problem
from dstack.project.starter import FILES, write_starter
from dstack.ui.terminal import clean


def check() -> None:
    """Read and check all YAML files of the project and the inventory; run nothing.

    Prints every problem at once, as file:line:column, and exits with 2 when there is one.
    """
    session = wiring.open_session()
    problems: list[Problem] = []
    project = _gather(session.project, problems)
    hosts = _gather(session.inventory, problems)
    _gather(lambda: session.settings, problems)
    if problems:
        raise ConfigError(sorted(set(problems)))
    for note in project.notes:
        sys.stderr.write(f"{clean(str(note))} (note)\n")
    workflows = len(project.workflows)
    print(f"{_counted(workflows, 'workflow')}, {_counted(len(hosts), 'host')}: nothing is wrong")


def _gather(read: Callable[[], Any], problems: list[Problem]) -> Any:
    """What `read` gives, or None with its problems noted."""
    try:
        return read()
    except ConfigError as error:
        problems += error.problems
        return None


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def init() -> None:
    """Write a commented starter into .dstack/ of the current folder; files that are there stay as they are."""
    root = Path.cwd()
    written = {path.relative_to(root).as_posix() for path in write_starter(root)}
    for name in FILES:
        print(f"{'wrote' if name in written else 'kept '} {name}")
    print("next: `dstack run --help` lists the workflows, `dstack run train` runs one")
