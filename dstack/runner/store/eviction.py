"""What a host forgets: of its store what was used longest ago, where that is too large or the disk is nearly full; and
attempts that never began. What a job left is never forgotten here: it may wait for somebody who brings it in.

The modification time of a blob is when it was last used. A runner forgets in the course of a request, since none runs
while nobody asks for anything.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import Iterator, List, NamedTuple, Optional

from dstack.runner.base import safe_paths
from dstack.runner.base.spool import attempts
from dstack.runner.store import blob_store
from dstack.wire import REFUSED, Refusal

STORE_SHARE = 10
"""The store has at most one part in so many of its disk, and leaves as much of it free."""
KEEP_AFTER_USE_S = 6 * 3600.0
"""Seconds after its last use in which a blob stays: some attempt may be about to take it."""
STORE_SWEEP_INTERVAL_S = 600.0
"""Seconds between two looks at the whole store of a host whose disk has room."""
FULL_SWEEP_INTERVAL_S = 10.0
"""The same where it has none, which may be for others' files."""
KEEP_REFUSED_S = 2 * 86_400.0
"""Seconds after which an attempt that was refused is forgotten: whoever asks then is told the same."""
SWEEP_MARK = "store.looked"
"""Beside the store: its modification time is when somebody last looked at all of it, its lock who does."""


class Blob(NamedTuple):
    """A file of the store: its path, the bytes that it takes on the disk, when it was last used."""

    path: str
    size: int
    used: float


class Disk(NamedTuple):
    """Bytes of a file system: all that it holds, and what an ordinary user can still write."""

    total: int
    free: int


def forgotten(blobs: List[Blob], disk: Disk, *, now: float, coming: int = 0) -> List[Blob]:
    """Which blobs go, the longest unused first, so that `coming` bytes find room. Pure; `now`: as their times."""
    room = disk.total // STORE_SHARE
    excess = coming + max(sum(blob.size for blob in blobs) - room, room - disk.free)
    gone = []
    for blob in sorted(blobs, key=lambda blob: blob.used):
        if excess <= 0 or blob.used > now - KEEP_AFTER_USE_S:
            break
        gone.append(blob)
        excess -= blob.size
    return gone


def make_room(root: str, *, coming: int = 0, disk: Optional[Disk] = None) -> int:
    """Forget what must go; returns the bytes. Of several runners one does it, and none looks too often.

    `disk` is looked up where it is None. Raises nothing: what cannot be removed stays.
    """
    folder = os.path.join(root, "store")
    try:
        there = disk or _disk(folder)
        with _turn(root, hurry=there.free - coming < there.total // STORE_SHARE) as mine:
            return _forget(root, there, coming) if mine else 0
    except OSError:
        return 0


def _forget(root: str, disk: Disk, coming: int) -> int:
    now = time.time()
    blob_store.sweep(root, now=now)
    _forget_refused(root, now)
    freed = 0
    for blob in forgotten(list(_blobs(root)), disk, now=now, coming=coming):
        with contextlib.suppress(OSError):
            os.unlink(blob.path)
            freed += blob.size
    return freed


def _forget_refused(root: str, now: float) -> None:
    for attempt in attempts(root):
        with contextlib.suppress(OSError, Refusal):
            if now - os.stat(attempt.folder).st_mtime < KEEP_REFUSED_S or attempt.lives() or attempt.read_exit():
                continue
            # A held one whose supervisor was killed has no verdict. Whichever way it goes, nothing begins any more.
            if attempt.decide(REFUSED) == REFUSED:
                safe_paths.remove_tree(attempt.folder)


def _disk(folder: str) -> Disk:
    state = os.statvfs(folder)
    return Disk(state.f_blocks * state.f_frsize, state.f_bavail * state.f_frsize)


@contextlib.contextmanager
def _turn(root: str, *, hurry: bool) -> Iterator[bool]:
    """Whether it is this runner's turn to look; `hurry` where the disk is nearly full."""
    fd = os.open(os.path.join(root, SWEEP_MARK), safe_paths.MARK_FLAGS, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        looked = os.fstat(fd)
        if looked.st_size and 0 <= time.time() - looked.st_mtime < (
            FULL_SWEEP_INTERVAL_S if hurry else STORE_SWEEP_INTERVAL_S
        ):
            yield False
            return
        yield True
        os.pwrite(fd, b"1", 0)
        os.utime(fd)
    finally:
        os.close(fd)


def _blobs(root: str) -> Iterator[Blob]:
    folder = os.path.join(root, "store")
    for part in os.listdir(folder):
        if len(part) != 2:
            continue
        with contextlib.suppress(OSError), os.scandir(os.path.join(folder, part)) as found:
            for entry in found:
                with contextlib.suppress(FileNotFoundError):
                    state = entry.stat(follow_symlinks=False)
                    yield Blob(entry.path, state.st_blocks * 512, state.st_mtime)
