"""Changes `hosts.yaml` on disk: whole or not at all, everything but the one entry as it was."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dstack.errors import DstackError, NotFoundError
from dstack.model import Host
from dstack.private_folder import FILE_MODE, make_folder, open_file
from dstack.project.hosts.editor import add_host, remove_host


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A file of hosts; `shown` is how people call it. A `private` one is the user's own, another the project's."""

    path: Path
    shown: str
    private: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a file will hold, and what it held when that was decided."""

    place: Place
    before: bytes
    after: bytes


def prepare(place: Place, edit: Callable[[bytes], bytes]) -> Change:
    """The file as `edit` makes it; nothing is written. Raises what `edit` raises."""
    before = _read(place)
    return Change(place=place, before=before, after=edit(before))


def prepare_add(place: Place, host: Host) -> Change:
    """The file with `host`; nothing is written. Raises UsageError or ConfigError as `add_host` does."""
    return prepare(place, lambda before: add_host(before, host, place.shown))


def prepare_remove(place: Place, name: str) -> Change:
    """The file without the host; nothing is written. Raises NotFoundError when it is not there."""
    before = _read(place)
    if not before:
        raise NotFoundError(f"{place.shown} has no host {name!r}", hint="`dstack hosts ls` says where each host stands")
    return Change(place=place, before=before, after=remove_host(before, name, place.shown))


def replace(change: Change) -> None:
    """Put the new text in its place; a symbolic link stays one. Raises DstackError when the file has changed since.

    The file keeps its mode, a new one has 0600, and a private one always.
    """
    target, shown = change.place.path.resolve(), change.place.shown
    if _read(change.place) != change.before:
        raise DstackError(f"{shown} was changed by somebody else meanwhile", hint="run the command again")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        if not target.parent.exists():
            make_folder(str(target.parent))
        keeps = target.exists() and not change.place.private
        mode = stat.S_IMODE(target.stat().st_mode) if keeps else FILE_MODE
        with os.fdopen(open_file(str(temporary), os.O_WRONLY | os.O_EXCL), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(change.after)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DstackError(f"cannot write {shown}: {error.strerror}") from None


def _read(place: Place) -> bytes:
    try:
        return place.path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise DstackError(f"cannot read {place.shown}: {error.strerror}") from None
