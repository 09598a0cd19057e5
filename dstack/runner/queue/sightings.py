"""What every account of a host can see of an attempt that belongs to one of them: its ticket, or its supervisor's name.

An account cannot look into another account's spool. It can see who owns a ticket of the shared queue and whether the
ticket is locked; and where no queue is shared, how the supervisors of all accounts call themselves in /proc. The owner
alone can forge either. Nothing here is changed, and nobody who takes or leaves a ticket is held up.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import pwd
import stat
import sys
from typing import List, Optional

from dstack.runner.base import file_locks
from dstack.runner.base.spool import NONCE, try_lock
from dstack.runner.queue import folders
from dstack.wire import ALIVE, UNKNOWN, UNSEEN

PR_SET_NAME = 15
PROC_FOLDER = "/proc"
_MARK = "ds:"
_NAME_BYTES = 15
"""Longest name of a process that the kernel keeps."""


def sighting(nonce: object, account: object) -> str:
    """Whether attempt `nonce` of `account` is seen to live: ALIVE, UNSEEN, or UNKNOWN where this host shows nothing.

    ALIVE: its ticket is locked, or its supervisor runs. UNSEEN: neither is there, which is no proof of an end: a job
    may outlive its supervisor where no queue is shared.
    """
    uid = _uid_of(account)
    if uid is None or not isinstance(nonce, str) or not NONCE.match(nonce):
        return UNKNOWN
    ticket = _ticket_is_locked(nonce, uid) if folders.is_shared() else None
    if ticket:
        return ALIVE
    supervisor = _supervisor_runs(nonce, uid)
    if supervisor:
        return ALIVE
    return UNKNOWN if ticket is None and supervisor is None else UNSEEN


def name_supervisor(nonce: str) -> None:
    """Call this process after its attempt, where /proc shows the name to every account; a no-op elsewhere."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_NAME, _name(nonce).encode("ascii"), 0, 0, 0)


def _name(nonce: str) -> str:
    return (_MARK + nonce)[:_NAME_BYTES]


def _uid_of(account: object) -> Optional[int]:
    if not isinstance(account, str) or not account or "\0" in account:
        return None
    try:
        return pwd.getpwnam(account).pw_uid
    except (KeyError, ValueError):
        return int(account) if account.isdecimal() and len(account) <= 10 else None


def _ticket_is_locked(nonce: str, uid: int) -> Optional[bool]:
    """Whether the account's ticket is in the shared queue and locked; None when the queue cannot be read."""
    try:
        paths = [path for folder in folders.ticket_folders()[:1] for path in _paths(folder, nonce)]
    except OSError:
        return None
    locks = file_locks.Snapshot()
    return any(_ticket_lives(path, uid, locks) for path in paths)


def _paths(folder: str, nonce: str) -> List[str]:
    """The files that have the name of a ticket of that nonce, whosever they are."""
    with os.scandir(folder) as entries:
        return [entry.path for entry in entries if _is_named(entry.name, nonce)]


def _is_named(name: str, nonce: str) -> bool:
    order, _, mark = name.partition("-")
    return mark == nonce[:16] and len(order) == 20 and order.isdecimal()


def _ticket_lives(path: str, uid: int, locks: file_locks.Snapshot) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False  # it was given back a moment ago, or is no ticket
    try:
        found = os.fstat(fd)
        return stat.S_ISREG(found.st_mode) and found.st_uid == uid and _is_locked(fd, uid, locks)
    finally:
        os.close(fd)


def _is_locked(fd: int, uid: int, locks: file_locks.Snapshot) -> bool:
    """By the kernel's list where that shows the lock; a lock that it hides is tried, shared and for an instant.

    Any account may lock the file: a lock that living processes of other accounts hold, and nobody else, proves nothing.
    One whose holder is not found is the account's: a job keeps the lock that its killed supervisor took. The try
    disturbs nobody: a claimed attempt locked its ticket before it was claimed, and whoever removes unlocked tickets
    takes the same shared lock.
    """
    try:
        pids = locks.holders_of(fd)
        if pids is not None:
            return not pids or any(_owner(os.path.join(PROC_FOLDER, str(pid))) in (None, uid) for pid in pids)
    except OSError:
        pass  # no such list on this system
    return not try_lock(fd, fcntl.LOCK_SH)


def _supervisor_runs(nonce: str, uid: int) -> Optional[bool]:
    """Whether a process of the account is named after the attempt; None where /proc hides other accounts."""
    if uid != os.getuid() and not _sees_others():
        return None
    try:
        pids = [name for name in os.listdir(PROC_FOLDER) if name.isdecimal()]
    except OSError:
        return None
    wanted = _name(nonce)
    return any(_comm(pid) == wanted and _owner(os.path.join(PROC_FOLDER, pid)) == uid for pid in pids)


def _sees_others() -> bool:
    """Whether processes of other accounts are shown here; the first process is root's, or not shown."""
    return os.getuid() == 0 or _comm("1") is not None


def _comm(pid: str) -> Optional[str]:
    try:
        with open(os.path.join(PROC_FOLDER, pid, "comm"), "rb") as file:
            return file.read(64).decode("utf-8", "replace").rstrip("\n")
    except OSError:
        return None


def _owner(path: str) -> Optional[int]:
    try:
        return os.lstat(path).st_uid
    except OSError:
        return None
