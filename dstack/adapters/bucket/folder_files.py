"""The folder bucket's reading side: descending without links, walking, and OSErrors in the reader's words."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from errno import EACCES, EAGAIN, EDQUOT, EISDIR, ELOOP, ENAMETOOLONG, ENOSPC, ENOTDIR, EROFS, ESTALE, EXDEV
from typing import Any, TypeVar

from dstack.core.format.key_rules import RESERVED_PREFIX, is_part
from dstack.errors import BucketError
from dstack.ports import Listed

T = TypeVar("T")

OPEN_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
OPEN_FOLDER = OPEN_ROOT | os.O_NOFOLLOW
OPEN_OBJECT = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_FOREIGN = (".nfs", ".DS_Store")
"""Names left in folders by file servers and desktops."""

_OTHER_BUCKET = "or name another bucket in .dstack/config.yaml"
_HINTS = {
    ENOSPC: f"the disk is full: make room {_OTHER_BUCKET}",
    EDQUOT: f"your quota there is used up: make room {_OTHER_BUCKET}",
    EROFS: f"the file system is read-only: mount it for writing {_OTHER_BUCKET}",
    EACCES: "its permissions do not let you: ask its owner; a team's bucket needs `chmod -R g+rwXs`",
    ENOTDIR: "what lies there is no folder (an object, a foreign file, a symbolic link): remove it",
    ELOOP: "a symbolic link lies in the bucket, where none belongs: remove it",
    EISDIR: "a folder has the name of an object: remove it",
    EXDEV: "another file system is mounted inside the bucket: unmount it or make that one the bucket",
    ESTALE: "the file server lost the folder: mount it again",
    ENAMETOOLONG: f"the path of the bucket is too long: shorten it {_OTHER_BUCKET}",
    EAGAIN: "another process keeps removing its folder: end that one and try again",
}


class NoLinksError(OSError):
    """link(2) does not work there."""


def explain(error: OSError, doing: str, place: str) -> BucketError:
    """The BucketError for an OSError: the path, the reason, and the next step."""
    if isinstance(error, NoLinksError):
        return BucketError(
            f"cannot {doing} {place}: this file system has no hard links, without which nothing can be created safely",
            hint="name a bucket on another file system (ext4, xfs, btrfs, APFS, NFS) in .dstack/config.yaml",
        )
    reason = error.strerror or type(error).__name__
    return BucketError(f"cannot {doing} {place}: {reason}", hint=_HINTS.get(error.errno or 0, "check the file system"))


def absent(call: Callable[..., T], *arguments: Any, **options: Any) -> T | None:
    """The result of `call`, None when the file is missing."""
    try:
        return call(*arguments, **options)
    except FileNotFoundError:
        return None


def identity(path: str) -> tuple[int, int]:
    """Device and number of a folder, (0, 0) for a missing folder."""
    found = absent(os.stat, path)
    return (found.st_dev, found.st_ino) if found is not None else (0, 0)


def descend(root: str, parts: Sequence[str]) -> int:
    """A descriptor of the folder `parts` below `root`, for the caller to close; follows links in `root` only."""
    fd = os.open(root, OPEN_ROOT)
    for part in parts:
        try:
            below = os.open(part, OPEN_FOLDER, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return fd


def open_object(root: str, parts: Sequence[str]) -> int | None:
    """A descriptor of an object for reading, None when absent."""
    try:
        folder = descend(root, parts[:-1])
    except FileNotFoundError:
        return None
    try:
        # O_NONBLOCK: a pipe planted under the name would block the reader for ever.
        return os.open(parts[-1], OPEN_OBJECT, dir_fd=folder)
    except FileNotFoundError:
        return None
    finally:
        os.close(folder)


def regular_size(fd: int) -> int:
    """Bytes of an open regular file; raises OSError for anything else, which is no object."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(EISDIR, "it is not a regular file")
    return status.st_size


def read_up_to(fd: int, size: int) -> bytes:
    body = os.read(fd, size) if size else b""
    if len(body) == size or not body:
        return body
    pieces = [body]
    missing = size - len(body)
    while missing and (piece := os.read(fd, missing)):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def names_in(fd: int, *, top: bool = False) -> list[str]:
    """The names of objects and (with "/") folders in an open folder, in the order of whole keys."""
    names = []
    with os.scandir(fd) as entries:
        for entry in entries:
            name = entry.name
            if not is_part(name) or name.startswith(_FOREIGN) or (top and name.startswith(RESERVED_PREFIX)):
                continue
            if entry.is_dir(follow_symlinks=False):
                names.append(name + "/")
            elif entry.is_file(follow_symlinks=False):
                names.append(name)
    names.sort()
    return names


def gather(fd: int, prefix: str, found: list[str], limit: int | None) -> None:
    """Add all keys below an open folder to `found`, ascending, up to `limit` keys; closes `fd`."""
    try:
        for name in names_in(fd, top=not prefix):
            if limit is not None and len(found) >= limit:
                return
            if not name.endswith("/"):
                found.append(prefix + name)
                continue
            below = absent(os.open, name[:-1], OPEN_FOLDER, dir_fd=fd)
            if below is not None:
                gather(below, prefix + name, found, limit)
    finally:
        os.close(fd)


def walk(fd: int, prefix: str) -> Iterator[Listed]:
    """All objects below an open folder, with their sizes; closes `fd`. Objects deleted meanwhile are left out."""
    try:
        for name in names_in(fd, top=not prefix):
            if name.endswith("/"):
                below = absent(os.open, name[:-1], OPEN_FOLDER, dir_fd=fd)
                if below is not None:
                    yield from walk(below, prefix + name)
                continue
            status = absent(os.stat, name, dir_fd=fd, follow_symlinks=False)
            if status is not None:
                yield Listed(key=prefix + name, size=status.st_size, modified=status.st_mtime)
    finally:
        os.close(fd)


def remove_empty(root: str, parts: Sequence[str]) -> None:
    """Remove the empty folders above a removed object."""
    for depth in range(len(parts), 0, -1):
        try:
            fd = descend(root, parts[: depth - 1])
            try:
                os.rmdir(parts[depth - 1], dir_fd=fd)
            finally:
                os.close(fd)
        except OSError:
            return
