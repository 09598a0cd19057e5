"""How every account of a host sees an attempt of another account: by the ticket, or by the name of the supervisor.

An account cannot read another account's spool. But every account sees the owner of a ticket in the shared queue and
whether the ticket is locked; and on a host without a shared queue, the names of all supervisors in /proc. Only the
owner can forge either sign. Looking changes nothing, and holds up no process that takes or leaves a ticket.
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
from dstack.runner.base.spool import try_lock
from dstack.runner.queue import folders
from dstack.wire import ALIVE, UNKNOWN, UNSEEN, is_nonce

PR_SET_NAME = 15
PROC_FOLDER = "/proc"
_MARK = "ds:"
_NAME_BYTES = 15
"""The kernel cuts names of processes to this length."""


def sighting(nonce: object, account: object) -> str:
    """Whether attempt `nonce` of `account` lives by all visible signs: ALIVE, UNSEEN, or UNKNOWN on a host without
    signs.

    ALIVE: the ticket is locked, or the supervisor runs. UNSEEN: neither is there, which proves no end: without a shared
    queue a job may outlive its supervisor unseen.
    """
    uid = _uid_of(account)
    if uid is None or not isinstance(nonce, str) or not is_nonce(nonce):
        return UNKNOWN
    # Private queues of other accounts cannot be read; only the shared queue says something.
    ticket = _ticket_is_locked(nonce, uid) if folders.is_shared() else None
    if ticket:
        return ALIVE
    supervisor = _supervisor_runs(nonce, uid)
    if supervisor:
        return ALIVE
    return UNKNOWN if ticket is None and supervisor is None else UNSEEN


def name_supervisor(nonce: str) -> None:
    """Name this process after the attempt, on a system whose /proc shows names to every account; else do nothing."""
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
        # Of a shared queue the folder comes first; all others are private to their accounts.
        paths = [path for folder in folders.ticket_folders()[:1] for path in _paths(folder, nonce)]
    except OSError:
        return None
    locks = file_locks.LockTable()
    return any(_ticket_lives(path, uid, locks) for path in paths)


def _paths(folder: str, nonce: str) -> List[str]:
    """All files with the name of a ticket of the nonce, of any owner."""
    with os.scandir(folder) as entries:
        return [entry.path for entry in entries if _is_named(entry.name, nonce)]


def _is_named(name: str, nonce: str) -> bool:
    order, _, mark = name.partition("-")
    return mark == nonce[:16] and len(order) == 20 and order.isdecimal()


def _ticket_lives(path: str, uid: int, locks: file_locks.LockTable) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False  # it was given back a moment ago, or is no ticket
    try:
        found = os.fstat(fd)
        return stat.S_ISREG(found.st_mode) and found.st_uid == uid and _is_locked(fd, uid, locks)
    finally:
        os.close(fd)


def _is_locked(fd: int, uid: int, locks: file_locks.LockTable) -> bool:
    """Whether an attempt of the account holds the lock of the ticket.

    The kernel's list of locks decides where it shows the lock. Any account may lock the file: a lock held only by
    living processes of other accounts proves nothing. A lock without a visible holder is the account's: a job keeps the
    lock of its killed supervisor.

    Without such a list, or for a hidden lock, a shared lock is tried for an instant. The try disturbs no process: a
    claimed attempt locked its ticket before the claim, and processes that remove unlocked tickets take the same shared
    lock.
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
    """Whether /proc shows processes of other accounts: then the first process, root's, is visible."""
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
