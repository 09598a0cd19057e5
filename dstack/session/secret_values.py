"""Where a run finds its secrets: what is set for the project, then the project's `.env`, then what is set for all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from dstack.adapters.secrets.dotenv_file import DOTENV_FILE, DotEnv, read_dotenv
from dstack.adapters.secrets.secrets_file import SecretScope
from dstack.adapters.secrets.store import SecretStore
from dstack.errors import Problem, SecretError
from dstack.model import JobSpec, Workflow

EVERYWHERE = SecretScope(project=None)


class SecretSources:
    """The secrets of one project; nothing is opened before it is asked for."""

    def __init__(self, *, home: Path, root: Path, project: str) -> None:
        self._root = root
        self._scope = SecretScope(project=project)
        self._store = SecretStore(home)

    @cached_property
    def _dotenv(self) -> DotEnv:
        return read_dotenv(self._root)

    def find(self, name: str) -> str | None:
        """The value, None when it stands nowhere. Raises SecretError when the first that has it does not give it."""
        own = self._store.get(self._scope, name)
        if own is not None:
            return own
        written = self._dotenv.values.get(name)
        return written if written is not None else self._store.get(EVERYWHERE, name)

    def known(self) -> frozenset[str]:
        """The names that stand somewhere; no value is read, and no keyring is opened."""
        kept = (*self._store.list_secrets(self._scope), *self._store.list_secrets(EVERYWHERE))
        return frozenset((*(one.name for one in kept), *self._dotenv.values))

    def unread(self) -> str:
        """What in `.env` could not be read, for a hint; empty when all could."""
        lines = self._dotenv.unread
        return f"; line {', '.join(map(str, lines))} of {DOTENV_FILE} is no NAME=VALUE" if lines else ""

    def values(self, names: Iterable[str]) -> dict[str, str]:
        """Of these names all that can be had."""
        found = ((name, self.find(name)) for name in dict.fromkeys(names))
        return {name: value for name, value in found if value is not None}


def require_secrets(sources: SecretSources, jobs: Sequence[JobSpec]) -> None:
    """Refuse a run that asks for a secret which stands nowhere: SecretError names each, and its workflows."""
    wanted: dict[str, list[str]] = {}
    for spec in jobs:
        for name in spec.secrets:
            wanted.setdefault(name, []).append(spec.workflow)
    known = sources.known() if wanted else frozenset()
    missing = {name: workflows for name, workflows in wanted.items() if name not in known}
    if not missing:
        return
    told = "; ".join(f"secret {name} is not set (workflow {', '.join(users)})" for name, users in missing.items())
    raise SecretError(told, hint=f"{way_out(missing)}{sources.unread()}")


def missing_secrets(sources: SecretSources, workflows: Sequence[Workflow]) -> list[Problem]:
    """A problem for each workflow and secret of it that stands nowhere."""
    found = [(workflow, name) for workflow in workflows for name in workflow.secrets]
    known = sources.known() if found else frozenset()
    return [
        Problem(
            file=workflow.position.file,
            line=workflow.position.line,
            column=workflow.position.column,
            message=f"{workflow.name}: secret {name} is not set: {way_out([name])}",
        )
        for workflow, name in found
        if name not in known
    ]


def way_out(names: Iterable[str]) -> str:
    """What to do about secrets that are not set."""
    commands = ", ".join(f"`dstack secrets set {name}`" for name in names)
    return f"{commands}, or a line in {DOTENV_FILE} of the project folder"
