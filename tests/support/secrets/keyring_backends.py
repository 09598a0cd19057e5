"""Keyrings for tests, installed through the library's own setting: PYTHON_KEYRING_BACKEND names one of these classes.

They keep what they are given in the file that FAKE_KEYRING names, so that several processes share it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked, PasswordDeleteError

FILE = "FAKE_KEYRING"
NONE = "keyring.backends.fail.Keyring"


class Working(KeyringBackend):
    """Keeps and gives."""

    priority = 5.0

    @property
    def name(self) -> str:
        return "Test Keyring"

    def _read(self) -> dict[str, str]:
        path = Path(os.environ[FILE])
        found: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def set_password(self, service: str, username: str, password: str) -> None:
        Path(os.environ[FILE]).write_text(json.dumps({**self._read(), f"{service} {username}": password}))

    def get_password(self, service: str, username: str) -> str | None:
        return self._read().get(f"{service} {username}")

    def delete_password(self, service: str, username: str) -> None:
        kept = self._read()
        if f"{service} {username}" not in kept:
            raise PasswordDeleteError("no such password")
        del kept[f"{service} {username}"]
        Path(os.environ[FILE]).write_text(json.dumps(kept))


class Locked(Working):
    """Has everything and gives nothing."""

    def set_password(self, service: str, username: str, password: str) -> None:
        raise KeyringLocked("the vault is locked\nsecond line")

    def get_password(self, service: str, username: str) -> str | None:
        raise KeyringLocked("the vault is locked\nsecond line")


class Forgetful(Working):
    """Says yes to everything and keeps nothing."""

    def set_password(self, service: str, username: str, password: str) -> None:
        pass


class Plain(Working):
    """What the library itself does not recommend, such as plain files."""

    priority = 0.5
