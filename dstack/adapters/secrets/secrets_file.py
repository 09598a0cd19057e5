"""`~/.dstack/secrets.json`: the names of all stored secrets, and the values refused by the keyring.

Readable by its owner alone, like a private key; replaced whole, under a lock: two commands at once lose nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dstack.errors import SecretError
from dstack.private_folder import make_folder, open_file, write_file

SECRETS_FILE = "~/.dstack/secrets.json"
SECRETS_FILE_VERSION = 1
SECRETS_FILE_LIMIT_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class SecretScope:
    """The owner of secrets: one project or, with `project` None, all projects."""

    project: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSecret:
    """One stored secret. `value` None: the keyring has the value."""

    scope: SecretScope
    name: str
    value: str | None = None

    def __repr__(self) -> str:
        return f"Kept({self.name}, {'file' if self.value is not None else 'keyring'})"


class SecretsFile:
    """All stored secrets by scope and name. Raises SecretError for a damaged file, or a file readable by others."""

    def __init__(self, home: Path) -> None:
        self._path = home / ".dstack" / "secrets.json"

    def read(self) -> dict[tuple[SecretScope, str], StoredSecret]:
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise SecretError(f"{SECRETS_FILE} cannot be read: {error.strerror}") from None
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(file.fileno())
            # After opening: a check of the path before could look at another file than the one read.
            if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
                raise SecretError(
                    f"{SECRETS_FILE} can be read by others",
                    hint=f"chmod 600 {SECRETS_FILE}, and change the secrets that it holds",
                )
            body = file.read(SECRETS_FILE_LIMIT_BYTES + 1)
        kept = _decode(body)
        return {(one.scope, one.name): one for one in kept}

    @contextmanager
    def change(self) -> Iterator[dict[tuple[SecretScope, str], StoredSecret]]:
        """All stored secrets, for changes in the block, written at its end. Other commands wait meanwhile."""
        folder = self._path.parent
        try:
            make_folder(str(folder))
            # A file of its own: the secrets file is replaced at each change, and a lock on it would go with it.
            lock = open_file(str(folder / "secrets.lock"), os.O_RDWR)
        except OSError as error:
            raise SecretError(f"~/.dstack cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            kept = self.read()
            before = dict(kept)
            yield kept
            if kept != before:
                self._write(kept)
        finally:
            os.close(lock)

    def _write(self, kept: Mapping[tuple[SecretScope, str], StoredSecret]) -> None:
        try:
            write_file(str(self._path), _encode(kept))
        except OSError as error:
            raise SecretError(f"{SECRETS_FILE} cannot be written: {error.strerror}") from None


def _encode(kept: Mapping[tuple[SecretScope, str], StoredSecret]) -> bytes:
    entries: list[dict[str, Any]] = [
        {"project": one.scope.project, "name": one.name, **({} if one.value is None else {"value": one.value})}
        for one in sorted(kept.values(), key=lambda one: (one.scope.project or "", one.name))
    ]
    return json.dumps({"v": SECRETS_FILE_VERSION, "kind": "secrets", "secrets": entries}, indent=1).encode() + b"\n"


def _decode(body: bytes) -> list[StoredSecret]:
    damaged = SecretError(f"{SECRETS_FILE} is damaged", hint="move it away, then set the secrets again")
    try:
        document = json.loads(body)
        if document["v"] > SECRETS_FILE_VERSION:
            raise SecretError(f"{SECRETS_FILE} was written by a later version", hint="update dstack")
        found = []
        for entry in document["secrets"]:
            project, name, value = entry["project"], entry["name"], entry.get("value")
            if not isinstance(name, str) or not isinstance(project, str | None) or not isinstance(value, str | None):
                raise damaged
            found.append(StoredSecret(scope=SecretScope(project=project), name=name, value=value))
        return found
    except (ValueError, KeyError, TypeError, RecursionError):
        raise damaged from None
