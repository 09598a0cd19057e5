"""A folder of this machine for artifacts, safe against any names and links in a manifest.

Every name is resolved below one descriptor, folder by folder, never through a symbolic link: a link planted in the
middle of a write leads nobody out either. Files are written beside their place and renamed once size and sha256 are
right. Nothing of the user's is removed to make room: the error names the obstacle.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType

from dstack.core.artifacts.paths import UnsafePathError, check_link, parts_of, path_bytes, path_text
from dstack.errors import DstackError
from dstack.model import Entry, EntryKind

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_BYTES = 1 << 20
_FOLDER_ATTEMPTS = 8
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_HINTS = {
    errno.ENOTDIR: "a file or a symbolic link stands where a folder belongs: remove it or give another folder with -o",
    errno.ELOOP: "a symbolic link stands where a folder belongs: remove it or give another folder with -o",
    errno.EISDIR: "a folder stands there: remove it or give another folder with -o",
    errno.ENOSPC: "the disk is full: make room or give another folder with -o",
    errno.EACCES: "you may not write there: give another folder with -o",
    errno.EILSEQ: "this file system takes no such name: pull on another machine",
}


class SafeFolder:
    """The `TreeWriter` port on a folder, which is made by the first write. Close it when done."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        self._fd = -1
        self._lock = threading.Lock()

    def __enter__(self) -> SafeFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1

    def holds(self, entry: Entry) -> bool:
        """Whether exactly this stands there already. A file's mode is put right, a folder's is the user's own."""
        parts = self._parts(entry)
        try:
            with self._folder(parts[:-1], make=False) as parent:
                return _holds(parent, parts[-1], entry)
        except OSError as error:
            if error.errno in _ABSENT:
                return False
            raise self._error(entry, error) from None

    def write(self, entry: Entry, chunks: Iterable[bytes]) -> None:
        """Put the entry in its place; `chunks` are the bytes of a file, and unread for other kinds.

        An existing file or link there is replaced. Raises DstackError for an entry outside the folder, for bytes other
        than the entry's, and for refusals of the file system; nothing half written stays behind.
        """
        parts = self._parts(entry)
        try:
            if entry.kind is EntryKind.FOLDER:
                self._write_folder(parts, entry)
                return
            with self._folder(parts[:-1], make=True) as parent:
                _refuse_folder(parent, parts[-1])
                # Beside its place: rename(2) is atomic within one file system only.
                temporary = f".dstack-{secrets.token_hex(8)}.tmp".encode("ascii")
                try:
                    if entry.kind is EntryKind.LINK:
                        os.symlink(path_bytes(entry.target), temporary, dir_fd=parent)
                    else:
                        self._write_file(parent, temporary, entry, chunks)
                    os.rename(temporary, parts[-1], src_dir_fd=parent, dst_dir_fd=parent)
                except BaseException:
                    _unlink(parent, temporary)
                    raise
        except OSError as error:
            raise self._error(entry, error) from None

    def folds_names(self) -> bool:
        """Whether the file system folds upper and lower case, tried by a file that is removed again."""
        name = f".dstack-a{secrets.token_hex(8)}.tmp"
        try:
            with self._folder((), make=True) as top:
                os.close(os.open(name, _NEW, 0o600, dir_fd=top))
                try:
                    os.stat(name.upper(), dir_fd=top, follow_symlinks=False)
                except FileNotFoundError:
                    return False
                finally:
                    os.unlink(name, dir_fd=top)
                return True
        except OSError as error:
            raise DstackError(f"cannot write to {self.path}: {error.strerror}", hint=_hint(error)) from None

    def _parts(self, entry: Entry) -> tuple[bytes, ...]:
        try:
            parts = parts_of(entry.path)
            if entry.kind is EntryKind.LINK:
                check_link(entry.path, entry.target)
        except UnsafePathError as error:
            raise DstackError(
                f"not written to {self.path}: {error}", hint="the manifest is forged: do not use it"
            ) from None
        return parts

    def _write_folder(self, parts: tuple[bytes, ...], entry: Entry) -> None:
        with self._folder(parts[:-1], make=True) as parent:
            if _mkdir(parent, parts[-1], 0o700):
                with _closing(os.open(parts[-1], _FOLDER, dir_fd=parent)) as made:
                    os.fchmod(made, entry.mode | 0o700)
            else:
                os.close(os.open(parts[-1], _FOLDER, dir_fd=parent))

    def _write_file(self, parent: int, name: bytes, entry: Entry, chunks: Iterable[bytes]) -> None:
        digest = hashlib.sha256()
        size = 0
        with _closing(os.open(name, _NEW, 0o600, dir_fd=parent)) as fd:
            for chunk in chunks:
                size += len(chunk)
                # No need to hash the rest, nor to fill the disk with it.
                if size > entry.size:
                    break
                digest.update(chunk)
                view = memoryview(chunk)
                while view:
                    view = view[os.write(fd, view) :]
            if size != entry.size or digest.hexdigest() != entry.sha256:
                raise DstackError(
                    f"the bytes of {path_text(entry.path)} in the bucket are not those of its manifest",
                    hint="the bucket is damaged there: run the workflow with --rerun",
                )
            os.fchmod(fd, entry.mode)

    @contextmanager
    def _folder(self, parts: tuple[bytes, ...], *, make: bool) -> Iterator[int]:
        # A duplicate: `close` in another thread must not pull the folder away from a write.
        fd = os.dup(self._top(make))
        try:
            for part in parts:
                deeper = _enter(fd, part, make)
                os.close(fd)
                fd = deeper
            yield fd
        finally:
            os.close(fd)

    def _top(self, make: bool) -> int:
        with self._lock:
            if self._fd < 0:
                if make:
                    os.makedirs(self.path, exist_ok=True)
                # The user named this folder: if it is a link, it is the user's.
                self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            return self._fd

    def _error(self, entry: Entry, error: OSError) -> DstackError:
        return DstackError(
            f"cannot write {path_text(entry.path)} in {self.path}: {error.strerror}",
            hint=_hint(error),
        )


def _hint(error: OSError) -> str | None:
    return _HINTS.get(error.errno or 0)


@contextmanager
def _closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def _enter(fd: int, part: bytes, make: bool) -> int:
    for _ in range(_FOLDER_ATTEMPTS):
        try:
            return os.open(part, _FOLDER, dir_fd=fd)
        except FileNotFoundError:
            if not make:
                raise
        _mkdir(fd, part, 0o777)
    raise OSError(errno.EBUSY, "it changes all the time")


def _mkdir(parent: int, name: bytes, mode: int) -> bool:
    """Make a folder; False when the name is taken."""
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        return False
    return True


def _refuse_folder(parent: int, name: bytes) -> None:
    try:
        state = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(state.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


def _unlink(parent: int, name: bytes) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except OSError:
        return


def _holds(parent: int, name: bytes, entry: Entry) -> bool:
    state = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if entry.kind is EntryKind.FOLDER:
        return stat.S_ISDIR(state.st_mode)
    if entry.kind is EntryKind.LINK:
        return stat.S_ISLNK(state.st_mode) and os.readlink(name, dir_fd=parent) == path_bytes(entry.target)
    if not stat.S_ISREG(state.st_mode) or state.st_size != entry.size:
        return False
    try:
        fd = os.open(name, _READ, dir_fd=parent)
    except PermissionError:
        return False
    with _closing(fd):
        if _sha256(fd) != entry.sha256:
            return False
        if stat.S_IMODE(state.st_mode) != entry.mode:
            # A file with other names has its mode for all of them: replaced, not changed.
            if state.st_nlink > 1:
                return False
            os.fchmod(fd, entry.mode)
    return True


def _sha256(fd: int) -> str:
    digest = hashlib.sha256()
    while piece := os.read(fd, _READ_BYTES):
        digest.update(piece)
    return digest.hexdigest()
