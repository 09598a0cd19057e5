"""The sources of secrets, in order: secrets set for the project, the project's `.env`, secrets set for all projects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from dstack.adapters.secrets.dotenv_file import DOTENV_FILE, DotEnv, read_dotenv
from dstack.adapters.secrets.secrets_file import SecretScope
from dstack.adapters.secrets.store import SecretStore
from dstack.errors import Problem, SecretError
from dstack.model import JobSpec, Workflow

ALL_PROJECTS = SecretScope(project=None)


class SecretSources:
    """The secrets of a project; a keyring or file is opened at the first question."""

    def __init__(self, *, home: Path, root: Path, project: str) -> None:
        self._root = root
        self._scope = SecretScope(project=project)
        self._store = SecretStore(home)

    @cached_property
    def _dotenv(self) -> DotEnv:
        return read_dotenv(self._root)

    def find(self, name: str) -> str | None:
        """The value of a secret; None for an unset secret. Raises SecretError when the first source with the secret
        fails."""
        own = self._store.get(self._scope, name)
        if own is not None:
            return own
        # Before the secrets for all projects: `.env` belongs to this project.
        written = self._dotenv.values.get(name)
        return written if written is not None else self._store.get(ALL_PROJECTS, name)

    def set_names(self) -> frozenset[str]:
        """The names of all set secrets; no value is read, and no keyring is opened."""
        stored = (*self._store.list_secrets(self._scope), *self._store.list_secrets(ALL_PROJECTS))
        return frozenset((*(one.name for one in stored), *self._dotenv.values))

    def unread(self) -> str:
        """The unreadable lines of `.env`, for a hint; "" without unreadable lines."""
        lines = self._dotenv.unread
        return f"; line {', '.join(map(str, lines))} of {DOTENV_FILE} is no NAME=VALUE" if lines else ""

    def values(self, names: Iterable[str]) -> dict[str, str]:
        """The values of the set secrets among `names`."""
        found = ((name, self.find(name)) for name in dict.fromkeys(names))
        return {name: value for name, value in found if value is not None}


def require_secrets(sources: SecretSources, jobs: Sequence[JobSpec]) -> None:
    """Refuse a run that asks for unset secrets: SecretError names each secret, and the workflows that ask for the
    secret."""
    wanted: dict[str, list[str]] = {}
    for spec in jobs:
        for name in spec.secrets:
            wanted.setdefault(name, []).append(spec.workflow)
    set_names = sources.set_names() if wanted else frozenset()
    missing = {name: workflows for name, workflows in wanted.items() if name not in set_names}
    if not missing:
        return
    text = "; ".join(f"secret {name} is not set (workflow {', '.join(users)})" for name, users in missing.items())
    raise SecretError(text, hint=f"{way_out(missing)}{sources.unread()}")


def missing_secrets(sources: SecretSources, workflows: Sequence[Workflow]) -> list[Problem]:
    """A problem for each unset secret of each workflow."""
    found = [(workflow, name) for workflow in workflows for name in workflow.secrets]
    set_names = sources.set_names() if found else frozenset()
    return [
        Problem(
            file=workflow.position.file,
            line=workflow.position.line,
            column=workflow.position.column,
            message=f"{workflow.name}: secret {name} is not set: {way_out([name])}",
        )
        for workflow, name in found
        if name not in set_names
    ]


def way_out(names: Iterable[str]) -> str:
    """The way out for unset secrets."""
    commands = ", ".join(f"`dstack secrets set {name}`" for name in names)
    return f"{commands}, or a line in {DOTENV_FILE} of the project folder"
