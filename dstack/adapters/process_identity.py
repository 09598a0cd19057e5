"""Names of this process, account, machine and boot, and whether another coordinator on this machine still lives."""

from __future__ import annotations

import fcntl
import os
import pwd
import secrets
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from dstack.core.format.identifiers import run_id
from dstack.core.format.records import Coordinator
from dstack.core.run_names import NAME_COUNT, run_name
from dstack.model import Nonce, RunId, RunName
from dstack.private_folder import make_folder, open_file
from dstack.wire import BOOT_ID_VARIABLE, is_boot_id, is_nonce

ENDED_LOCK_LIFETIME_S = 7 * 24 * 3600.0
"""Seconds for which the lock file of an ended coordinator stays: a peer that can lock the file is sure of the end."""
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_LINUX_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """The unique id of this boot of this machine; "" where the system gives none.

    Containers share the id of their machine: equal ids say nothing of file systems and process numbers. Tests set the
    id in the environment of the account; a malformed word there is ignored.
    """
    forced = os.environ.get(BOOT_ID_VARIABLE, "")
    if is_boot_id(forced):
        return forced
    if sys.platform == "darwin":
        return _session_of_darwin()
    try:
        return _LINUX_BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _session_of_darwin() -> str:
    # Imported here on purpose: it would cost every command more than all else in this module.
    import subprocess

    command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
    try:
        asked = subprocess.run(command, capture_output=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return asked.stdout.decode("ascii", "replace").strip().lower()


def boottime() -> float:
    """A monotonic clock in seconds, going on through suspend."""
    # macOS has no CLOCK_BOOTTIME; its CLOCK_MONOTONIC goes on through suspend.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def machine_name() -> str:
    return socket.gethostname()


def user_name() -> str:
    """The account's name, by its number: the environment may say anything."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def new_nonce() -> Nonce:
    """128 random bits in hex; also good as the id of a coordinator."""
    return Nonce(secrets.token_hex(16))


def new_run_id(now: float) -> RunId:
    """An id that sorts after all earlier ids; `now` is in seconds since the epoch, by any clock."""
    tail = "".join(secrets.choice(_BASE32) for _ in range(10))
    return run_id(int(now * 1000), tail)


def new_run_name() -> RunName:
    """A random name like `calm-otter-7`; another run of the bucket may have the same name."""
    return run_name(secrets.randbelow(NAME_COUNT))


class CoordinatorLock:
    """`<root>/coordinators/<id>.lock`, held by flock from `__enter__` until `__exit__` or the process's end.

    A process able to open the file sees whether this coordinator lives. The file stays behind as the sign of the end;
    later coordinators remove old files. `root` is the folder of dstack, `~/.dstack` for a CLI. Entering raises OSError
    when the file cannot be made.
    """

    def __init__(self, root: Path, coordinator: str) -> None:
        if not is_nonce(coordinator):
            raise ValueError(f"{coordinator!r} is no id of a coordinator")
        self.id = coordinator
        self.path = root.absolute() / "coordinators" / f"{coordinator}.lock"
        self._fd: int | None = None

    def __enter__(self) -> CoordinatorLock:
        folder = self.path.parent
        make_folder(str(folder))
        _sweep(folder)
        # Python opens files so that programs started later do not inherit them: the lock is this process's alone.
        fd = open_file(str(self.path), os.O_RDWR)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def coordinator_alive(record: Coordinator, here: str) -> bool | None:
    """Whether the coordinator lives, None when this process cannot be sure; `here` is this machine's boot id.

    Sure means: the same boot of the same machine, and the lock file can be opened. Its random name shows that the file
    is the coordinator's and not another container's.
    """
    path = Path(record.lock)
    if not here or record.boot_id != here or path.name != f"{record.id}.lock" or not path.is_absolute():
        return None
    return _is_locked(path)


def _is_locked(path: Path) -> bool | None:
    """Whether some process holds the lock; None when the file cannot be opened."""
    try:
        # A record is written by anybody: what it names may be a pipe, which must not be waited for.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        # Shared, so that two who look at the same moment do not take each other for the owner.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(fd)


def _sweep(folder: Path) -> None:
    """Remove lock files older than ENDED_LOCK_LIFETIME_S whose coordinators have ended."""
    oldest = time.time() - ENDED_LOCK_LIFETIME_S
    for path in folder.glob("*.lock"):
        with suppress(OSError):
            if path.stat().st_mtime < oldest and _is_locked(path) is False:
                path.unlink()
