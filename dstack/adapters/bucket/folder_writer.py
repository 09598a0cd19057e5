"""The folder bucket's writing side: from a temporary file to a named object, with folders, and the daily sweep."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from errno import (
    EAGAIN,
    EEXIST,
    EINTR,
    EINVAL,
    EIO,
    EISDIR,
    ELOOP,
    EMLINK,
    ENOSYS,
    ENOTDIR,
    ENOTEMPTY,
    ENOTSUP,
    EOPNOTSUPP,
    EPERM,
    ESTALE,
    ETIMEDOUT,
)
from typing import NamedTuple

from dstack.adapters.bucket.folder_files import OPEN_FOLDER, OPEN_ROOT, NoLinksError, absent
from dstack.core.format.key_rules import RESERVED_PREFIX
from dstack.ports import Put
from dstack.private_folder import FOLDER_MODE

LOOKUP_ATTEMPTS = 100
"""Look-ups of a name whose folder, being empty, was removed or replaced by another process."""

SWEEP_INTERVAL_S = 86_400.0
TEMPORARY_FILE_LIFETIME_S = 2 * 86_400.0
"""Seconds without a write after which a temporary file has no writer any more."""
SWEPT_FILES_LIMIT = 1_000

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SWEPT = "swept"
_NO_LINKS = frozenset({EPERM, ENOSYS, EOPNOTSUPP, ENOTSUP, EMLINK})
_OUTCOME_OPEN = frozenset({EIO, ESTALE, ETIMEDOUT, EINTR})


class _Rights(NamedTuple):
    """Permission bits for new files and folders; `shared` when others than the owner may write to the bucket."""

    folder: int
    file: int
    shared: bool


class ObjectWriter:
    """One object in the making: a temporary file in the bucket's own file system, then `link` or `rename`.

    A context manager: the block leaves nothing but the object, also after errors. Only a killed process leaves its
    temporary file, for a later sweep. Methods raise OSError.
    """

    def __init__(self, root: str) -> None:
        self._open: list[int] = []
        # Unguessable: in a shared bucket others may write to the folder of temporary files.
        self._name = os.urandom(12).hex()
        self._staged = False
        self._is_umasked = False
        """Whether the umask takes a right away from the bucket's files."""
        try:
            self._root = self._keep(_open_root(root))
            self._rights = _rights(os.fstat(self._root))
            self._staging, self._fd = self._stage()
            self._staged = True
            # A colleague could not read the object else.
            if os.fstat(self._fd).st_mode & self._rights.file != self._rights.file:
                self._is_umasked = True
                os.fchmod(self._fd, self._rights.file)
            _sweep(self._staging, now=os.fstat(self._fd).st_mtime, mode=self._rights.file)
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> ObjectWriter:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._forget()
        finally:
            self._close_from(0)

    def write(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:
            view = view[os.write(self._fd, view) :]

    def flush(self) -> None:
        os.fsync(self._fd)

    def link(self, parts: Sequence[str]) -> Put:
        """Give the file its name unless taken; durable after CREATED."""
        mark = len(self._open)
        for _ in range(LOOKUP_ATTEMPTS):
            self._close_from(mark)
            folders = self._make_folders(parts[:-1])
            # link(2) instead of O_EXCL on the name: the name appears with all bytes, or not at all.
            outcome = self._link_into(folders[-1], parts[-1]) if folders else None
            if outcome is Put.CREATED:
                self._forget()
                # The deepest first: most file systems then find nothing left to do for the others.
                flushed = [_flush_folder(fd) for fd in reversed(folders)]
                return Put.CREATED if all(flushed) else Put.UNKNOWN
            if outcome is not None:
                return outcome
        raise OSError(EAGAIN, "its folder does not stay")

    def rename(self, parts: Sequence[str]) -> None:
        """Give the file its name, replacing an earlier file. After a loss of power the object is whole, but perhaps the
        old object."""
        mark = len(self._open)
        for _ in range(LOOKUP_ATTEMPTS):
            self._close_from(mark)
            folders = self._make_folders(parts[:-1])
            if folders:
                try:
                    os.rename(self._name, parts[-1], src_dir_fd=self._staging, dst_dir_fd=folders[-1])
                except FileNotFoundError:
                    continue
                self._staged = False
                return
        raise OSError(EAGAIN, "its folder does not stay")

    def _link_into(self, folder: int, name: str) -> Put | None:
        """None: the folder is gone and must be looked up again."""
        try:
            os.link(self._name, name, src_dir_fd=self._staging, dst_dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except FileExistsError:
            # An NFS client may have sent the call twice and been told of its own success.
            if os.fstat(self._fd).st_nlink != 2:
                return _answer_for_taken_name(folder, name)
        except OSError as error:
            if error.errno in _NO_LINKS:
                raise NoLinksError(error.errno, error.strerror) from None
            # The server may have linked the file before its answer was lost.
            if error.errno in _OUTCOME_OPEN:
                return Put.UNKNOWN
            raise
        return Put.CREATED

    def _make_folders(self, parts: Sequence[str]) -> list[int]:
        """Descriptors of the folders with a new name inside and, last, of the deepest; empty: look up again."""
        fd, changed = self._root, []
        for part in parts:
            below = absent(os.open, part, OPEN_FOLDER, dir_fd=fd)
            if below is None:
                changed.append(fd)
                self._make_folder(fd, part, staging=self._staging)
                below = absent(os.open, part, OPEN_FOLDER, dir_fd=fd)
                if below is None:
                    return []
            fd = self._keep(below)
        return [*changed, fd]

    def _make_folder(self, parent: int, name: str, *, staging: int) -> None:
        """Make a folder with the bucket's rights. An existing folder is fine; a missing
        `parent` is left to the caller."""
        try:
            if self._rights.shared or self._is_umasked or name == RESERVED_PREFIX:
                self._move_folder(parent, name, staging)
            else:
                os.mkdir(name, self._rights.folder, dir_fd=parent)
        except OSError as error:
            if error.errno not in (EEXIST, ENOTEMPTY, ENOTDIR) and not isinstance(error, FileNotFoundError):
                raise

    def _move_folder(self, parent: int, name: str, staging: int) -> None:
        """Make a folder elsewhere and move the folder here: with its rights from the first moment, under any umask.

        The move may replace an empty folder of another process, which then looks its folder up again.
        """
        spare = f"{RESERVED_PREFIX}.{os.urandom(12).hex()}"
        os.mkdir(spare, FOLDER_MODE, dir_fd=staging)
        try:
            made = os.stat(spare, dir_fd=staging).st_mode
            os.chmod(spare, stat.S_IMODE(made) | FOLDER_MODE, dir_fd=staging)
            fd = os.open(spare, OPEN_FOLDER, dir_fd=staging)
            try:
                os.fchmod(fd, self._rights.folder | (os.fstat(fd).st_mode & stat.S_ISGID))
            finally:
                os.close(fd)
            os.rename(spare, name, src_dir_fd=staging, dst_dir_fd=parent)
        except BaseException:
            absent(os.rmdir, spare, dir_fd=staging)
            raise

    def _stage(self) -> tuple[int, int]:
        """Descriptors of the folder for temporary files and of this writer's file inside."""
        mark = len(self._open)
        for _ in range(LOOKUP_ATTEMPTS):
            self._close_from(mark)
            staging = absent(os.open, RESERVED_PREFIX, OPEN_FOLDER, dir_fd=self._root)
            if staging is None:
                self._make_folder(self._root, RESERVED_PREFIX, staging=self._root)
                continue
            self._keep(staging)
            fd = absent(os.open, self._name, _NEW, self._rights.file, dir_fd=staging)
            if fd is not None:
                return staging, self._keep(fd)
        raise OSError(EAGAIN, "its folder for temporary files does not stay")

    def _forget(self) -> None:
        if self._staged:
            self._staged = False
            absent(os.unlink, self._name, dir_fd=self._staging)

    def _keep(self, fd: int) -> int:
        self._open.append(fd)
        return fd

    def _close_from(self, mark: int) -> None:
        while len(self._open) > mark:
            os.close(self._open.pop())


def _open_root(path: str) -> int:
    for _ in range(LOOKUP_ATTEMPTS):
        fd = absent(os.open, path, OPEN_ROOT)
        if fd is not None:
            return fd
        _make_root(path)
    raise OSError(EAGAIN, "the folder of the bucket does not stay")


def _make_root(path: str) -> None:
    parent = os.path.dirname(path)
    try:
        os.mkdir(path, FOLDER_MODE)
        os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) | FOLDER_MODE)
    except FileExistsError:
        return
    except FileNotFoundError:
        if parent == path:
            raise
        _make_root(parent)
        return
    fd = os.open(parent, OPEN_ROOT)
    try:
        _flush_folder(fd)
    finally:
        os.close(fd)


def is_shared(mode: int) -> bool:
    """Whether a file or folder with the mode is writable by others than its owner."""
    return bool(mode & (stat.S_IWGRP | stat.S_IWOTH))


def _rights(root: os.stat_result) -> _Rights:
    group = bool(root.st_mode & stat.S_IWGRP)
    others = bool(root.st_mode & stat.S_IWOTH)
    folder = 0o700 | (0o070 if group else 0) | (0o007 if others else 0)
    return _Rights(folder, folder & 0o666, is_shared(root.st_mode))


def _answer_for_taken_name(folder: int, name: str) -> Put:
    """EXISTS when an object has the name; raises OSError for anything unreadable under the name."""
    status = absent(os.stat, name, dir_fd=folder, follow_symlinks=False)
    if status is not None and not stat.S_ISREG(status.st_mode):
        code = ELOOP if stat.S_ISLNK(status.st_mode) else EISDIR
        raise OSError(code, "its name is taken by something that is no object")
    return Put.EXISTS


def _flush_folder(fd: int) -> bool:
    """Whether the names in an open folder are on disk; True on a file system without such a flush."""
    try:
        os.fsync(fd)
    except OSError as error:
        return error.errno in (EINVAL, ENOTSUP, EOPNOTSUPP)
    return True


def _sweep(staging: int, *, now: float, mode: int) -> None:
    """Once a day, remove temporary files of dead writers. `now` is the file system's own clock. Never fails a write."""
    try:
        mark = absent(os.stat, _SWEPT, dir_fd=staging, follow_symlinks=False)
        # The mark is a file in the bucket: one of all machines sweeps, once a day.
        if mark is not None and now - mark.st_mtime < SWEEP_INTERVAL_S:
            return
        # Unlinked and made anew, not touched: of two sweepers one gets FileExistsError and stops.
        absent(os.unlink, _SWEPT, dir_fd=staging)
        swept = os.open(_SWEPT, _NEW, mode, dir_fd=staging)
        os.fchmod(swept, mode)
        os.close(swept)
        with os.scandir(staging) as entries:
            for entry, _ in zip(entries, range(SWEPT_FILES_LIMIT), strict=False):
                _sweep_one(staging, entry, now - TEMPORARY_FILE_LIFETIME_S)
    except OSError:
        return


def _sweep_one(staging: int, entry: os.DirEntry[str], before: float) -> None:
    try:
        if entry.stat(follow_symlinks=False).st_mtime >= before:
            return
        if entry.is_dir(follow_symlinks=False):
            os.rmdir(entry.name, dir_fd=staging)
        else:
            os.unlink(entry.name, dir_fd=staging)
    except OSError:
        return
