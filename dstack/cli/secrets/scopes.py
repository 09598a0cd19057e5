"""For whom a secret is kept: the project of the current folder, or all projects."""

from __future__ import annotations

from pathlib import Path

from dstack.adapters.secrets.secrets_file import SecretScope
from dstack.cli.command_session import open_session, own_home
from dstack.errors import UsageError
from dstack.project.locate import find_project
from dstack.session.secret_values import ALL_PROJECTS


def scope_of(everywhere: bool) -> SecretScope:
    if everywhere:
        return ALL_PROJECTS
    try:
        return SecretScope(project=open_session().name)
    except UsageError as error:
        raise UsageError(str(error), hint="go to the project whose secret it is, or say --global") from None


def whose(scope: SecretScope) -> str:
    return "all projects" if scope.project is None else f"project {scope.project}"


def project_folder() -> Path | None:
    try:
        return find_project(Path.cwd(), home=own_home())
    except UsageError:
        return None
