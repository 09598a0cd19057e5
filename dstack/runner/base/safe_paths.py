"""Folders of a job, entered part by part and never through a symbolic link; names are bytes.

A path on the wire is UTF-8 text; other bytes travel as lone surrogates (`surrogateescape`). Files are named by bytes
here, so that the locale of a host changes nothing.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
from typing import Any, Callable, Iterator, List, Sequence, Union

from dstack.wire import Refusal

MAX_PART = 255
MAX_PATH = 4096
MAX_DEPTH = 128
PIECE_BYTES = 256 * 1024
HASH_BLOCK_BYTES = 1 << 20
COPY_BYTES = 1 << 28

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: to open a pipe without a writer would wait for ever.
FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
MARK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
NEW_FILE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

# fcntl.FICLONE, which Python names from 3.12 on.
_FICLONE = 0x40049409
_IN_THE_WAY = (errno.ENOTDIR, errno.ELOOP)
# What file systems of macOS ignore in a name: ".g\u200cit" would be ".git" there.
_IGNORED = dict.fromkeys(
    [0xFEFF, *range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070)],
)

_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def kind_in_words(mode: int) -> str:
    """The kind of the entry with this `st_mode`, in words for messages."""
    return _KINDS.get(stat.S_IFMT(mode), "something unknown")


def path_text(path: bytes) -> str:
    """The path in the form of manifests."""
    return path.decode("utf-8", "surrogateescape")


def shown_path(path: object) -> str:
    """The path for messages: no control characters, at most 200 characters."""
    name = path_text(path) if isinstance(path, bytes) else str(path)
    return ascii(name[:200] + ("..." if len(name) > 200 else ""))


def is_git(part: bytes) -> bool:
    """Whether git would take a folder of this name for its own, on any file system."""
    name = path_text(part).translate(_IGNORED).lower().rstrip(". ")
    return name in (".git", "git~1")


def split_path(path: object, kind: str) -> List[bytes]:
    """The parts of a path of a manifest; raises Refusal(kind) unless it is safe below any folder.

    Safe: relative, no empty part, ".", ".." or NUL, parts of at most 255 bytes, nothing of git's, not `.dstack`.
    """
    try:
        name = path.encode("utf-8", "surrogateescape") if isinstance(path, str) else b""
    except UnicodeEncodeError:
        name = b""
    parts = name.split(b"/")
    if (
        not name
        or path_text(name) != path
        or b"\0" in name
        or len(name) > MAX_PATH
        or len(parts) > MAX_DEPTH
        or any(part in (b"", b".", b"..") or len(part) > MAX_PART or is_git(part) for part in parts)
        or parts[0].lower() == b".dstack"
    ):
        raise Refusal(kind, "%s is not a path that dstack takes" % shown_path(path), "see docs/format.md, Artifacts")
    return parts


def artifact_parts(path: object) -> List[bytes]:
    """The parts of an artifact path as the user wrote the path ("./out/", "."); raises Refusal("artifact") for a path
    that leaves the folder."""
    if not isinstance(path, str) or not path or path.startswith("/"):
        raise Refusal("artifact", "%s is not a path relative to the project folder" % shown_path(path))
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return split_path("/".join(parts), "artifact") if parts else []


def link_is_inside(path: Sequence[bytes], target: bytes) -> bool:
    """Whether a link at `path` with this target stays below the top folder, wherever other links lead.

    ".." only at the beginning: there ".." counts from the link's own folder, a real folder. Behind a name ".." would
    count from the target of the name.
    """
    if not target or target.startswith(b"/") or b"\0" in target or len(target) > MAX_PATH:
        return False
    parts = [part for part in target.split(b"/") if part not in (b"", b".")]
    up = 0
    while up < len(parts) and parts[up] == b"..":
        up += 1
    rest = parts[up:]
    return up < len(path) and b".." not in rest and not any(is_git(part) for part in rest)


def open_top(path: str) -> int:
    """A descriptor of a job's project folder; raises Refusal("artifact") where no folder is left."""
    try:
        return os.open(path, FOLDER_FLAGS)
    except OSError as error:
        raise Refusal("artifact", "cannot open the work tree %s: %s" % (path, error.strerror)) from None


def open_folder(top: int, parts: Sequence[bytes]) -> int:
    """A descriptor of the folder `parts` below `top`; raises OSError, ELOOP or ENOTDIR at a symbolic link."""
    fd = os.dup(top)
    for part in parts:
        try:
            deeper = os.open(part, FOLDER_FLAGS, dir_fd=fd)
        finally:
            os.close(fd)
        fd = deeper
    return fd


def make_folder(top: int, parts: Sequence[bytes]) -> int:
    """Like `open_folder`; makes missing folders, and replaces files and links in the place of a folder."""
    fd = os.dup(top)
    for part in parts:
        try:
            deeper = _enter(fd, part)
        finally:
            os.close(fd)
        fd = deeper
    return fd


def _enter(fd: int, part: bytes) -> int:
    # A bound, because a process of the job may put something in the way again and again.
    for _ in range(8):
        try:
            return os.open(part, FOLDER_FLAGS, dir_fd=fd)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise
            os.unlink(part, dir_fd=fd)
        try:
            os.mkdir(part, 0o755, dir_fd=fd)
        except FileExistsError:
            continue
    raise OSError(errno.EBUSY, "it changes all the time")


def clone(source: int, target: int) -> bool:
    """Let `target` share the blocks of `source` where the file system can; False when it cannot."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def copy_range(source: int, target: int, size: int) -> bool:
    """Copy the first `size` bytes inside the kernel; False when the kernel cannot, and then a part may be there."""
    at = 0
    while at < size and hasattr(os, "copy_file_range"):
        try:
            count = os.copy_file_range(source, target, min(size - at, COPY_BYTES), at, at)
        except OSError:
            return False  # whatever it is, who copies by hand will see it, too
        if not count:
            return False
        at += count
    return at == size


def read_pieces(fd: int, size: int, start: int = 0) -> Iterator[bytes]:
    """`size` bytes from `start` on, or fewer when the file is shorter."""
    at, end = start, start + size
    while at < end:
        piece = os.pread(fd, min(PIECE_BYTES, end - at), at)
        if not piece:
            return
        at += len(piece)
        yield piece


def hash_file(fd: int) -> "tuple[str, int]":
    """sha256 and length of a whole file."""
    digest = hashlib.sha256()
    buffer = bytearray(HASH_BLOCK_BYTES)
    view = memoryview(buffer)
    at = 0
    while True:
        count = os.preadv(fd, [view], at) if hasattr(os, "preadv") else _pread_into(fd, view, at)
        if not count:
            return digest.hexdigest(), at
        digest.update(view[:count])
        at += count


def _pread_into(fd: int, view: memoryview, at: int) -> int:
    piece = os.pread(fd, len(view), at)
    view[: len(piece)] = piece
    return len(piece)


def write_all(fd: int, data: Union[bytes, memoryview]) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def remove_tree(path: str) -> None:
    """Remove a folder, also with parts that the job made read-only. Raises Refusal for an incomplete removal."""

    def open_up(function: Callable[..., Any], name: str, _: object) -> None:
        try:
            for locked in (os.path.dirname(name), name):
                if stat.S_ISDIR(os.lstat(locked).st_mode):
                    os.chmod(locked, 0o700)
            if os.path.isdir(name) and not os.path.islink(name):
                shutil.rmtree(name, ignore_errors=True)
            else:
                os.unlink(name)
        except OSError:
            pass  # counted below

    # `onerror`, because Python has `onexc` from 3.12 on only.
    shutil.rmtree(path, onerror=open_up)
    if os.path.lexists(path):
        hint = "files of another user may lie there; remove it as root"
        raise Refusal("release", "%s could not be removed whole" % path, hint)
