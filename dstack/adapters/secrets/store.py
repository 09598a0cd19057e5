"""Where the secrets of this user are kept: in the system's keyring, else in a file of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from dstack.adapters.secrets.secrets_file import SECRETS_FILE, SecretScope, SecretsFile, StoredSecret
from dstack.adapters.secrets.system_keyring import NoKeyringError, OsKeyring, open_keyring
from dstack.errors import SecretError


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretLocation:
    """Where a value went: `keyring` is the backend's name, None for the file. `why` says why not the keyring."""

    keyring: str | None = None
    why: str = ""

    def __str__(self) -> str:
        return f"the keyring ({self.keyring})" if self.keyring else f"{SECRETS_FILE} (mode 0600)"


class SecretStore:
    """Values by scope and name. The keyring is opened only to read or write a value there."""

    def __init__(self, home: Path) -> None:
        self._file = SecretsFile(home)
        self._keyring: OsKeyring | None = None

    def put(self, scope: SecretScope, name: str, value: str) -> SecretLocation:
        """Store a value in place of an earlier value, in the keyring if a working keyring exists."""
        with self._file.change() as kept:
            # Under the lock: the file must say "keyring" only for a value that is there.
            place = self._to_keyring(scope, name, value)
            earlier = kept.get((scope, name))
            kept[scope, name] = StoredSecret(scope=scope, name=name, value=None if place.keyring else value)
        if earlier is not None and earlier.value is None and not place.keyring:
            place = replace(place, why=f"{place.why}; an older value may still be in the keyring")
        return place

    def _to_keyring(self, scope: SecretScope, name: str, value: str) -> SecretLocation:
        try:
            keyring = self._open()
            keyring.put(keyring_service(scope), name, value)
        except (NoKeyringError, SecretError) as error:
            return SecretLocation(why=str(error))
        return SecretLocation(keyring=keyring.name)

    def get(self, scope: SecretScope, name: str) -> str | None:
        """The value, None when none is stored. Raises SecretError when the keyring has the value and keeps it back."""
        kept = self._file.read().get((scope, name))
        if kept is None or kept.value is not None:
            return kept.value if kept else None
        try:
            value = self._open().get(keyring_service(scope), name)
        except NoKeyringError as error:
            raise SecretError(
                f"secret {name} is in a keyring, and here is none: {error}",
                hint=f"`dstack secrets set {name}` here too, or run where the keyring opens",
            ) from None
        if value is None:
            raise SecretError(f"secret {name} is no longer in the keyring", hint=f"`dstack secrets set {name}` again")
        return value

    def remove(self, scope: SecretScope, name: str) -> bool:
        """Forget a value; False when none was kept."""
        with self._file.change() as kept:
            found = kept.get((scope, name))
            if found is None:
                return False
            if found.value is None:
                try:
                    self._open().remove(keyring_service(scope), name)
                except NoKeyringError as error:
                    raise SecretError(f"secret {name} is in a keyring, and here is none: {error}") from None
            del kept[scope, name]
        return True

    def list_secrets(self, scope: SecretScope) -> tuple[StoredSecret, ...]:
        """The stored secrets of a scope, by name."""
        every = self._file.read().values()
        return tuple(sorted((one for one in every if one.scope == scope), key=lambda one: one.name))

    def _open(self) -> OsKeyring:
        if self._keyring is None:
            self._keyring = open_keyring()
        return self._keyring


def keyring_service(scope: SecretScope) -> str:
    """The service name of a scope in the keyring."""
    return "dstack" if scope.project is None else f"dstack/{scope.project}"
