"""A full disk, told apart from every other refusal of an operating system."""

from __future__ import annotations

import errno
import os
import tempfile

from dstack.wire import NO_ROOM, Refusal

DISK_FULL = "the disk of the host is full"
DISK_ROOM_HINT = "free some disk space on the host, or set `dir:` for it in hosts.yaml"
TRIAL_BYTES = 1 << 20
"""Bytes of room on a disk that does not count as full."""
_ERRORS = (errno.ENOSPC, errno.EDQUOT)
_WORDS = ("No space left on device", "Disk quota exceeded")


def is_no_room(error: BaseException) -> bool:
    """Whether the operating system refused for want of room: a full disk, a quota, no inode left."""
    return isinstance(error, OSError) and error.errno in _ERRORS


def refusal(error: OSError, kind: str, message: str, hint: str) -> Refusal:
    """The refusal for `error`: of kind NO_ROOM for a full disk, else of `kind`."""
    if is_no_room(error):
        return Refusal(NO_ROOM, "%s: %s" % (DISK_FULL, message), DISK_ROOM_HINT)
    return Refusal(kind, message, hint)


def was_no_room(said: str, folder: str) -> bool:
    """Whether a failed program, with the words `said`, failed for want of room in `folder`: some programs do not say
    why."""
    return any(words in said for words in _WORDS) or is_full(folder)


def is_full(folder: str) -> bool:
    """Whether `folder` lacks room for TRIAL_BYTES more. Tried by writing: no number of the disk shows a quota."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            # Blocks, not only a length: a sparse file finds room on a full disk.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, TRIAL_BYTES)
            else:
                file.write(b"\0" * TRIAL_BYTES)
                file.flush()
    except OSError as error:
        return is_no_room(error)
    return False
