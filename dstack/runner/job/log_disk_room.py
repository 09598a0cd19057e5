"""Room for the log of a job, taken ahead, and whether the log ever filled all of the room on a full disk.

A job without secrets writes to the log itself: on a full disk the write fails, and only the job hears of the failure.
So the supervisor keeps blocks allocated beyond the end of the log. A log that is shorter than the allocated room is
whole. Once the log has filled the room and the disk gives no more, the next output of the job is lost.
"""

from __future__ import annotations

import ctypes
import os
from typing import Callable, Optional

from dstack.runner.base import disk_room

ROOM_AHEAD_BYTES = 1 << 20
"""Bytes that stay allocated beyond the end of the log."""
MAX_ROOM_AHEAD_BYTES = 8 << 20
"""Bytes that stay allocated beyond the end of a log that grows fast."""
MIN_ROOM_BYTES = 4096
"""The smallest request for room, on a disk that does not have ROOM_AHEAD_BYTES."""
DISK_BLOCK_BYTES = 4096
"""A log that comes nearer than a block to the end of the room has filled the room: file systems give room by blocks."""
# FALLOC_FL_KEEP_SIZE of linux/falloc.h.
_KEEP_SIZE = 1

Allocate = Callable[[int, int, int], None]
"""Takes room for a file, by descriptor, offset and length in bytes; raises OSError."""


class LogRoom:
    """The room of one log. Call `look` often while the job runs, and once after the end of the job.

    A disk that fills up and empties again between two looks goes unnoticed. The log may then lack something where the
    job wrote more than ROOM_AHEAD_BYTES between the looks. `loss` says in words what the log may lack, "" for nothing.
    On a file system that allocates no room ahead, the log counts as cut from the first look that finds the disk full.
    """

    def __init__(self, path: str, allocate: Optional[Allocate] = None) -> None:
        self.loss = ""
        self.is_full = False
        """Whether the last look found no further room."""
        self._path = path
        self._allocate = allocate or _allocate
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size
        self._end = self._size
        self._blind = False
        self.look()

    def look(self) -> None:
        """Take more room for a log that needs more; find out whether the log ran out of room."""
        size = os.fstat(self._fd).st_size
        # Twice the growth since the last look: a fast log must not reach the end of the room before the next look.
        ahead = min(MAX_ROOM_AHEAD_BYTES, max(ROOM_AHEAD_BYTES, 2 * (size - self._size)))
        self._size = size
        if self._blind:
            self.is_full = _nothing_free(self._path)
        elif self._end - size <= ahead // 2:
            self.is_full = not self._take(size + ahead)
        if self.is_full and (self._blind or size > self._end - DISK_BLOCK_BYTES):
            self.loss = self.loss or "%s: the log may lack what the job wrote after its byte %d" % (
                disk_room.DISK_FULL,
                size,
            )

    def close(self) -> None:
        """Give back the unused room; nothing may write to the log any more."""
        try:
            os.ftruncate(self._fd, os.fstat(self._fd).st_size)
        except OSError:
            # The unused room goes with the folder of the attempt at the latest.
            pass
        os.close(self._fd)

    def _take(self, end: int) -> bool:
        """Whether the log has more room after the call than before."""
        start, wanted = max(self._end, self._size), end - self._size
        while wanted >= MIN_ROOM_BYTES:
            try:
                self._allocate(self._fd, start, wanted)
                self._end = start + wanted
                return True
            except OSError as error:
                if not disk_room.is_no_room(error):
                    self._blind = True
                    return True
            wanted //= 16  # a disk that is nearly full may still have a smaller piece
        return False


def _allocate(fd: int, offset: int, length: int) -> None:
    """fallocate(2) without a change of the file size; Python has no call for this mode."""
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
