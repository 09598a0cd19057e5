"""Changes of `hosts.yaml` on disk: whole or not at all, with every other entry left alone."""

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
class HostsFile:
    """A file of hosts; messages call the file `shown`. A `private` file is the user's own, any other file the
    project's."""

    path: Path
    shown: str
    private: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HostsFileChange:
    """A decided change of a file: the bytes before, and the bytes after."""

    file: HostsFile
    before: bytes
    after: bytes


def prepare(file: HostsFile, edit: Callable[[bytes], bytes]) -> HostsFileChange:
    """The change of the file by `edit`; nothing is written. Raises the errors of `edit`."""
    before = _read(file)
    return HostsFileChange(file=file, before=before, after=edit(before))


def prepare_add(file: HostsFile, host: Host) -> HostsFileChange:
    """The change that adds `host`; nothing is written. Raises UsageError or ConfigError as `add_host` does."""
    return prepare(file, lambda before: add_host(before, host, file.shown))


def prepare_remove(file: HostsFile, name: str) -> HostsFileChange:
    """The change that removes the host; nothing is written. Raises NotFoundError for a host that is not in the file."""
    before = _read(file)
    if not before:
        raise NotFoundError(f"{file.shown} has no host {name!r}", hint="`dstack hosts ls` says where each host stands")
    return HostsFileChange(file=file, before=before, after=remove_host(before, name, file.shown))


def replace(change: HostsFileChange) -> None:
    """Write the new text into the file; a symbolic link stays a link. Raises DstackError when the file has changed
    since.

    The file keeps its mode; a new file, and a private file always, has mode 0600.
    """
    target, shown = change.file.path.resolve(), change.file.shown
    # A question to the user may have taken minutes since the first read.
    if _read(change.file) != change.before:
        raise DstackError(f"{shown} was changed by somebody else meanwhile", hint="run the command again")
    # In the same folder, so that the rename stays within a file system.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        if not target.parent.exists():
            make_folder(str(target.parent))
        keeps = target.exists() and not change.file.private
        mode = stat.S_IMODE(target.stat().st_mode) if keeps else FILE_MODE
        with os.fdopen(open_file(str(temporary), os.O_WRONLY | os.O_EXCL), "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(change.after)
            # On disk before the rename: after a crash the old text stands there, or the new, never an empty file.
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DstackError(f"cannot write {shown}: {error.strerror}") from None


def _read(file: HostsFile) -> bytes:
    try:
        return file.path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise DstackError(f"cannot read {file.shown}: {error.strerror}") from None
