"""A full disk, told apart from everything else that an operating system refuses."""

from __future__ import annotations

import errno
import os
import tempfile

from dstack.wire import NO_ROOM, Refusal

DISK_FULL = "the disk of the host is full"
DISK_ROOM_HINT = "free some disk space on the host, or set `dir:` for it in hosts.yaml"
TRIAL_BYTES = 1 << 20
"""Bytes for which there must be room on a disk that is not called full."""
_ERRORS = (errno.ENOSPC, errno.EDQUOT)
_WORDS = ("No space left on device", "Disk quota exceeded")


def is_lack(error: BaseException) -> bool:
    """Whether the operating system refused for want of room: a full disk, a quota, no inode left."""
    return isinstance(error, OSError) and error.errno in _ERRORS


def refusal(error: OSError, kind: str, message: str, hint: str) -> Refusal:
    """The refusal that `error` leads to: of kind NO_ROOM where a disk is full, else of `kind`."""
    if is_lack(error):
        return Refusal(NO_ROOM, "%s: %s" % (DISK_FULL, message), DISK_ROOM_HINT)
    return Refusal(kind, message, hint)


def ran_out(said: str, folder: str) -> bool:
    """Whether a program that failed, and `said` so, failed for want of room in `folder`: not all of them say why."""
    return any(words in said for words in _WORDS) or is_full(folder)


def is_full(folder: str) -> bool:
    """Whether there is no room for TRIAL bytes more in `folder`. Tried: a quota shows in no number of the disk's."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, TRIAL_BYTES)
            else:
                file.write(b"\0" * TRIAL_BYTES)
                file.flush()
    except OSError as error:
        return is_lack(error)
    return False
