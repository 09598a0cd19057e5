"""`dstack check`: read and check the files of the project; run nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from dstack.cli.command_session import open_session
from dstack.errors import ConfigError, Problem, SnapshotError
from dstack.project.plan import Project, check_includes
from dstack.project.snapshot_parts import CodeParts
from dstack.session.secret_values import missing_secrets
from dstack.session.session import Session
from dstack.ui.terminal import clean


def check() -> None:
    """Read and check all YAML files of the project and the inventory, that secrets are set, and whether the bucket can
    be read; run nothing.

    Prints every problem at once, as file:line:column, and exits with 2 when there is one, with 6 when it is the bucket.
    """
    session = open_session()
    problems: list[Problem] = []
    project = _gather(session.project, problems)
    hosts = _gather(session.inventory, problems)
    _gather(lambda: session.settings, problems)
    if project is not None and any(workflow.secrets for workflow in project.workflows):
        problems += _gather(lambda: missing_secrets(session.secrets, project.workflows), problems) or []
    unread = _check_includes(session, project, problems) if project is not None else ""
    if problems:
        # config.yaml is read for several questions, and its problems come with each.
        raise ConfigError(sorted(set(problems)))
    for note in project.notes:
        sys.stderr.write(f"{clean(str(note))} (note)\n")
    if unread:
        sys.stderr.write(clean(f"include was not compared with the files: {unread}") + "\n")
    _ = session.bucket  # opening it reads what it says of itself
    workflows = len(project.workflows)
    print(f"{_counted(workflows, 'workflow')}, {_counted(len(hosts), 'host')}: nothing is wrong")


def _check_includes(session: Session, project: Project, problems: list[Problem]) -> str:
    """Note each `include` without a match among the files to ship -> why the files could not be seen, else ""."""
    if all(source.depends.include is None for source in project.sources.values()):
        return ""
    try:
        code = CodeParts(session.code.files(session.code.snapshot()))
    except SnapshotError as error:
        return str(error)
    problems += check_includes(project, code)
    return ""


def _gather(read: Callable[[], Any], problems: list[Problem]) -> Any:
    """The result of `read`, or None with the problems noted."""
    try:
        return read()
    except ConfigError as error:
        problems += error.problems
        return None


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
