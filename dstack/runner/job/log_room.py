"""Room for the log of a job, taken ahead, and whether the log ever filled all of it on a full disk.

A job that is given nothing to mask writes to its log itself: when the disk is full its write fails, and nobody but the
job is told. So the supervisor keeps blocks allocated beyond the log's end. As long as the log is shorter than what was
allocated nothing of it was lost; once it has filled all of that while no more is to be had, what comes next is.
"""

from __future__ import annotations

import ctypes
import os
from typing import Callable, Optional

from dstack.runner.base import disk_room

AHEAD = 1 << 20
"""Bytes that are kept allocated beyond the end of the log."""
MOST = 8 << 20
"""The same for a log that grows fast."""
SMALLEST = 4096
"""The least that is asked for where AHEAD is not to be had."""
BLOCK = 4096
"""A log that comes nearer than this to the end of its room has filled it: file systems give room by blocks."""
_KEEP_SIZE = 1

Allocate = Callable[[int, int, int], None]
"""Takes room for a file: descriptor, offset, length; raises OSError."""


class LogRoom:
    """The room of one log. `look` is to be called often while the job runs, and once after its end: what fills the disk
    and leaves again between two looks is not seen, and matters where the job said more than AHEAD bytes meanwhile.

    `lost` says in words what may be missing, "" for nothing. Where the file system takes no room ahead, the log counts
    as cut from the first look that finds the disk full: more cannot be known there.
    """

    def __init__(self, path: str, allocate: Optional[Allocate] = None) -> None:
        self.lost = ""
        self.full = False
        """Whether the last look found no room for more."""
        self._path = path
        self._allocate = allocate or _allocate
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size
        self._end = self._size
        self._blind = False
        self.look()

    def look(self) -> None:
        """Take more room where the log needs it; find out whether it had too little."""
        size = os.fstat(self._fd).st_size
        ahead = min(MOST, max(AHEAD, 2 * (size - self._size)))
        self._size = size
        if self._blind:
            self.full = _nothing_free(self._path)
        elif self._end - size <= ahead // 2:
            self.full = not self._take(size + ahead)
        if self.full and (self._blind or size > self._end - BLOCK):
            self.lost = self.lost or "%s: the log may lack what the job wrote after its byte %d" % (
                disk_room.FULL,
                size,
            )

    def close(self) -> None:
        """Give back what the log did not need; nothing may write to it any more."""
        try:
            os.ftruncate(self._fd, os.fstat(self._fd).st_size)
        except OSError:
            pass
        os.close(self._fd)

    def _take(self, end: int) -> bool:
        """Whether the log has more room now than before."""
        start, wanted = max(self._end, self._size), end - self._size
        while wanted >= SMALLEST:
            try:
                self._allocate(self._fd, start, wanted)
                self._end = start + wanted
                return True
            except OSError as error:
                if not disk_room.is_lack(error):
                    self._blind = True
                    return True
            wanted //= 16
        return False


def _allocate(fd: int, offset: int, length: int) -> None:
    """fallocate(2) that leaves the size of the file as it is, which Python has no call for."""
    libc = ctypes.CDLL(None, use_errno=True)
    call = getattr(libc, "fallocate64", None) or getattr(libc, "fallocate", None)
    if call is None:
        raise OSError("this system takes no room ahead")
    if call(fd, _KEEP_SIZE, ctypes.c_int64(offset), ctypes.c_int64(length)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _nothing_free(path: str) -> bool:
    try:
        free = os.statvfs(path)
    except OSError:
        return False
    return free.f_bavail == 0
