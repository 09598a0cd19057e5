"""Slots of the host: one flock for each, shared by all its users.

A slot is taken exactly as long as any process has the locked descriptor open: the supervisor, and by inheritance
every process of the job. So whoever is killed, a slot is never free while its job runs, and never leaks.
The files are read-only for all and hold nothing; nobody can lock more than that a host seems full.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from typing import Callable, List, NamedTuple, Optional

from dstack.runner.refusal import Refusal
from dstack.runner.spool import try_lock

FOLDER = "/var/tmp/dstack-slots"  # noqa: S108 - meant for all users; each file is opened with care
"""Not under $HOME: flock is not to be trusted on network file systems, and slots are the host's, not a user's."""
MOST = 4096


class Slot(NamedTuple):
    """A taken slot: its number from 0, and the descriptor that holds it."""

    number: int
    fd: int


def folder() -> str:
    """Where the slots of this host are; DSTACK_SLOTS_DIR is for tests."""
    return os.environ.get("DSTACK_SLOTS_DIR") or FOLDER


def take(slots: int, given_up: Callable[[float], bool]) -> Optional[Slot]:
    """Wait until one of the slots 0 … `slots`-1 is free and take it.

    `given_up(seconds)` is called between looks: it waits at most that long and says whether nobody wants the
    slot any more; then the answer is None. Raises Refusal when the files cannot be had.
    """
    if not 1 <= slots <= MOST:
        raise Refusal("slots", "a host has 1 to %d slots, not %r" % (MOST, slots))
    files = _open_all(slots)
    try:
        began = time.monotonic()
        while True:
            for number, fd in enumerate(files):
                if try_lock(fd, fcntl.LOCK_EX):
                    files.remove(fd)
                    return Slot(number, fd)
            waited = time.monotonic() - began
            if given_up(0.01 if waited < 2 else 0.05):
                return None
    finally:
        for fd in files:
            os.close(fd)


def _open_all(slots: int) -> List[int]:
    path = folder()
    files: List[int] = []
    try:
        _make_folder(path)
        for index in range(slots):
            files.append(_open(os.path.join(path, str(index))))
    except OSError as error:
        for fd in files:
            os.close(fd)
        raise Refusal(
            "slots", "the slots of this host cannot be used: %s" % error, "remove %s as root and try again" % path
        ) from None
    return files


def _make_folder(path: str) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    os.chmod(path, 0o1777)  # noqa: S103 - sticky, as /tmp itself


def _open(path: str) -> int:
    """The slot's file, made when absent. A folder just made by another user opens to all only a moment later."""
    deadline = time.monotonic() + 2
    while True:
        try:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            except FileNotFoundError:
                _create(path)
                continue
        except PermissionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
            continue
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a plain file", path)
        return fd


def _create(path: str) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o444)
    except FileExistsError:
        return
    try:
        os.fchmod(fd, 0o444)
    finally:
        os.close(fd)
