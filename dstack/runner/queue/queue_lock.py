"""The lock of the host's queue, over several folders at once. A process waits for the lock in steps, and names the
holder.

Every account can take the lock of a shared queue, and a process that keeps the lock keeps all others waiting. So no
wait is blind: a wait ends when it is cancelled or its time is over, and meanwhile reports the holder of the lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, Union

from dstack.runner.base import file_locks, system_shortage
from dstack.runner.base.spool import try_lock
from dstack.runner.queue.folders import LOCK_FILE
from dstack.runner.queue.tickets import account_name
from dstack.wire import Refusal

MAX_RETRY_PAUSE_S = 0.02
"""Longest pause between two tries, in seconds."""
NAME_HOLDER_AFTER_S = 2.0
"""Seconds after which a wait names the holder of the lock; usual holders need milliseconds."""
QUEUE_LOCK_HINT = "ask its owner to end it, or end it as root; nothing else of the queue is lost"


class WaitPolicy(NamedTuple):
    """How a process waits. `wait_for_cancel(seconds)` waits at most `seconds` for a cancellation, and returns True for
    one; `report` gets the reason of the wait, and "" at its end; `timeout_s` in seconds, None for no limit."""

    wait_for_cancel: Callable[[float], bool]
    report: Callable[[str], None] = lambda text: None
    timeout_s: Optional[float] = None


class QueueLock:
    """The locks of some `folders`, by their open `files`. The end of the `with` block releases all locks."""

    def __init__(self, folders: List[str], files: contextlib.ExitStack) -> None:
        self.folders = folders
        self._files = files

    def __enter__(self) -> "QueueLock":
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()


def take_lock(folders: Callable[[], List[str]], policy: WaitPolicy) -> Optional[QueueLock]:
    """Lock the queue in all `folders()`, asked anew at each try; None when the wait was cancelled.

    A shortage (`system_shortage.py`) counts as a lock of another process, and is reported at once: no folder may be
    left out because a shortage keeps the lock file closed. A later folder is left out if its lock file cannot be
    opened for any other reason.

    Raises Refusal when the lock file of the first folder cannot be opened, and when the time is over, with the name of
    the holder or the lacking resource.
    """
    began, last_report, pause = time.monotonic(), "", 0.001
    name_at = began + (NAME_HOLDER_AFTER_S if policy.timeout_s is None else min(NAME_HOLDER_AFTER_S, policy.timeout_s))
    while True:
        now = time.monotonic()
        over = policy.timeout_s is not None and now - began >= policy.timeout_s
        named = over or now >= name_at
        found = _try_locks(folders, named)
        if isinstance(found, QueueLock):
            if last_report:
                policy.report("")
            return found
        if over:
            raise found
        text = found.message or last_report
        if text != last_report:
            policy.report(text)
            last_report = text
        if named:
            # Every look for the holder reads all locks of the host, so the next look comes after a pause.
            name_at = now + NAME_HOLDER_AFTER_S
        if policy.wait_for_cancel(pause):
            return None
        pause = min(MAX_RETRY_PAUSE_S, 2 * pause)


def _try_locks(folders: Callable[[], List[str]], named: bool) -> Union[QueueLock, Refusal]:
    """The lock of all `folders()`, or why the lock is not free; the message names the holder if `named`."""
    with contextlib.ExitStack() as files:
        try:
            fds = _open_locks(folders(), files)
            held = _first_held(fds.values())
        except OSError as error:
            if not system_shortage.is_shortage(error):
                raise
            return system_shortage.refusal(error, "slots", "the queue cannot be locked", "")
        if held is not None:
            return Refusal("lock", _describe_holder(held) if named else "", QUEUE_LOCK_HINT)
        return QueueLock(list(fds), files.pop_all())


def _first_held(fds: Iterable[int]) -> Optional[int]:
    """Take every lock, in order -> the first lock that another process holds, or None when all are taken."""
    return next((fd for fd in fds if not try_lock(fd, fcntl.LOCK_EX)), None)


def _open_locks(folders: List[str], files: contextlib.ExitStack) -> Dict[str, int]:
    """Descriptors of the lock files by folder, open until `files` are closed; raises OSError for a shortage."""
    fds: Dict[str, int] = {}
    for folder in folders:
        try:
            fds[folder] = _open_lock(os.path.join(folder, LOCK_FILE), files)
        except OSError as error:
            if system_shortage.is_shortage(error):
                raise
            if fds:
                continue  # nobody else can lock it either
            raise Refusal(
                "slots",
                "the slots of this host cannot be used: %s" % error,
                "remove %s as root and try again" % folder,
            ) from None
    return fds


def _open_lock(path: str, files: contextlib.ExitStack) -> int:
    is_new = False
    try:
        # flock(2) needs no right to write; without O_NONBLOCK a planted pipe would keep every process waiting here.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o444)
        is_new = True
    files.callback(os.close, fd)
    if is_new:
        os.fchmod(fd, 0o444)  # whatever the umask: every account must be able to lock the file
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise OSError("%s is not a plain file" % path)
    return fd


def _describe_holder(fd: int) -> str:
    """In words, which processes hold the lock of the open file `fd`."""
    path = os.readlink("/proc/self/fd/%d" % fd) if os.path.exists("/proc/self/fd") else "the lock"
    try:
        pids = file_locks.LockTable().holders_of(fd) or []
    except OSError:
        pids = []
    names = [name for name in map(_describe_process, pids) if name]
    who = ", ".join(names[:4]) or "a process that cannot be seen from here"
    return "the lock of the queue (%s) is held by %s" % (path, who)


def _describe_process(pid: int) -> str:
    """`bob (process 4711, sleep)`; "" for an ended process."""
    try:
        with open("/proc/%d/status" % pid, encoding="utf-8", errors="replace") as file:
            lines = dict(line.rstrip("\n").partition(":\t")[::2] for line in file)
        name = "".join(letter for letter in lines.get("Name", "") if letter.isprintable())
        return "%s (process %d, %s)" % (account_name(int(lines["Uid"].split()[0])), pid, name)
    except (OSError, ValueError, KeyError, IndexError):
        return ""
