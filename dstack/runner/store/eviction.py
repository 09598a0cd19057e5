"""Eviction on a host: the longest unused blobs of a store that is too large, or on a disk that is nearly full; and
attempts that never began. The artifacts of a job are never evicted here: a coordinator may still come and collect.

The modification time of a blob is the time of the last use. A runner evicts in the course of a request, since no runner
runs without requests.
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
"""The store takes at most this part of its disk, and leaves as much of the disk free: one part in ten."""
KEEP_AFTER_USE_S = 6 * 3600.0
"""Seconds after the last use during which a blob stays: an attempt may be about to take the blob."""
STORE_SWEEP_INTERVAL_S = 600.0
"""Seconds between two looks at the whole store of a host with room on the disk."""
FULL_SWEEP_INTERVAL_S = 10.0
"""The same on a nearly full disk. Files of other programs may be the cause."""
KEEP_REFUSED_S = 2 * 86_400.0
"""Seconds after which a refused attempt is removed: a later question gets the same answer."""
SWEEP_MARK = "store.looked"
"""A file beside the store: the modification time is the time of the last look at the whole store, the lock belongs to
the looking runner."""


class Blob(NamedTuple):
    """A file of the store: the path, the bytes on the disk, the time of the last use."""

    path: str
    size: int
    used: float


class Disk(NamedTuple):
    """Bytes of a file system: the whole size, and the room left for an ordinary user."""

    total: int
    free: int


def blobs_to_evict(blobs: List[Blob], disk: Disk, *, now: float, coming: int = 0) -> List[Blob]:
    """The blobs to evict, the longest unused first, so that `coming` bytes find room. Pure; `now`: as their times."""
    room = disk.total // STORE_SHARE
    excess = coming + max(sum(blob.size for blob in blobs) - room, room - disk.free)
    gone = []
    # In the order of the last use, so that the first fresh blob ends the search.
    for blob in sorted(blobs, key=lambda blob: blob.used):
        if excess <= 0 or blob.used > now - KEEP_AFTER_USE_S:
            break
        gone.append(blob)
        excess -= blob.size
    return gone


def make_room(root: str, *, coming: int = 0, disk: Optional[Disk] = None) -> int:
    """Evict blobs and refused attempts; returns the freed bytes. Of several runners one works, and none too often.

    `disk` is looked up where None is given. Raises nothing: files that cannot be removed stay.
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
    blob_store.remove_stale_files(root, now=now)
    _forget_refused(root, now)
    freed = 0
    for blob in blobs_to_evict(list(_blobs(root)), disk, now=now, coming=coming):
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
    """Whether this runner has the turn to look; `hurry` on a nearly full disk."""
    fd = os.open(os.path.join(root, SWEEP_MARK), safe_paths.MARK_FLAGS, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        looked = os.fstat(fd)
        # A look in the future, by a clock that was set back since, does not count.
        if looked.st_size and 0 <= time.time() - looked.st_mtime < (
            FULL_SWEEP_INTERVAL_S if hurry else STORE_SWEEP_INTERVAL_S
        ):
            yield False
            return
        yield True
        # A byte, not only a time: an empty mark is new and says nothing about a look.
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
                    # The unit of st_blocks is 512 bytes, whatever the block size of the file system is.
                    yield Blob(entry.path, state.st_blocks * 512, state.st_mtime)
