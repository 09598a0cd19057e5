"""The keyring of the operating system, through the `keyring` library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dstack.errors import SecretError

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

RECOMMENDED_PRIORITY = 1
"""Lowest priority of a good backend, by the library. Backends below fail, forget, or write plain files."""


class NoKeyringError(Exception):
    """No keyring works here; the text says why."""


@dataclass(frozen=True, slots=True)
class OsKeyring:
    """One backend. Every method raises SecretError, with the backend's own words, on failure."""

    backend: KeyringBackend

    @property
    def name(self) -> str:
        return str(self.backend.name)

    def put(self, service: str, name: str, value: str) -> None:
        """Store a value, and read the value back: on return the backend has given the same value."""
        try:
            self.backend.set_password(service, name, value)
            # Some backends say nothing and keep nothing.
            kept = self.backend.get_password(service, name)
        except Exception as error:  # whatever a system's backend raises, and its libraries
            raise self._error(error) from None
        if kept != value:
            raise SecretError(f"the keyring ({self.name}) did not keep {name} as it is")

    def get(self, service: str, name: str) -> str | None:
        try:
            return self.backend.get_password(service, name)
        except Exception as error:
            raise self._error(error) from None

    def remove(self, service: str, name: str) -> None:
        """Forget a value; an absent value is fine."""
        from keyring.errors import PasswordDeleteError

        try:
            self.backend.delete_password(service, name)
        except PasswordDeleteError:
            if self.get(service, name) is not None:
                raise SecretError(f"the keyring ({self.name}) does not forget {name}") from None
        except Exception as error:
            raise self._error(error) from None

    def _error(self, error: Exception) -> SecretError:
        told = str(error).strip().splitlines()[:1]
        text = told[0][:300] if told else type(error).__name__
        return SecretError(f"the keyring ({self.name}) cannot be used: {text}", hint="unlock it, then try again")


def open_keyring() -> OsKeyring:
    """The backend of the library's choice, or of its configuration. Raises NoKeyringError without a good backend.

    Imported here: the library looks through all installed packages for backends.
    """
    try:
        import keyring

        backend = keyring.get_keyring()
        good = backend.priority >= RECOMMENDED_PRIORITY
    except Exception as error:
        raise NoKeyringError(f"{type(error).__name__}: {error}") from None
    if not good:
        raise NoKeyringError("this system has no keyring that works")
    return OsKeyring(backend)
