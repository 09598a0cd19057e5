"""The holders of files by flock(2), as the kernel lists all accounts' locks in /proc/locks.

The list shows the view from this process. A lock from another pid namespace (another container) may be absent, and so
may a lock that outlived its process, unless this process is in the first namespace. So a listed file is locked; an
unlisted file may be locked all the same.
"""

from __future__ import annotations

import os
from typing import Dict, List, Optional, Tuple

from dstack.runner.base import system_shortage

FileId = Tuple[int, int, int]
"""Major and minor number of the device, and the inode."""

LOCK_LIST = "/proc/locks"
MOUNT_LIST = "/proc/self/mountinfo"
MAX_LIST_BYTES = 16 << 20
"""Bytes to read of the list: some 250,000 locks."""


def holders() -> Dict[FileId, List[int]]:
    """Every file locked by flock now -> the processes that took the locks, by the numbers of this pid namespace.

    A file has an empty list when its holders have no number here. Raises OSError where the system has no such list.
    """
    with open(LOCK_LIST, "rb") as file:
        return parse(file.read(MAX_LIST_BYTES).decode("ascii", "replace"))


def parse(text: str) -> Dict[FileId, List[int]]:
    """The holders in a text of /proc/locks; lines of any other kind or form are left out."""
    found: Dict[FileId, List[int]] = {}
    for line in text.splitlines():
        lock = _flock(line)
        if lock is not None:
            file, pid = lock
            pids = found.setdefault(file, [])
            if pid > 0 and pid not in pids:
                pids.append(pid)
    return found


def _flock(line: str) -> Optional[Tuple[FileId, int]]:
    """`7: FLOCK  ADVISORY  WRITE 4711 08:01:1310 0 EOF` -> the file and the process; None for another line.

    A process that still waits stands behind an arrow (`7: -> FLOCK …`) and is no holder.
    """
    words = line.split()
    if len(words) < 6 or words[1] != "FLOCK":
        return None
    try:
        major, minor, inode = words[5].split(":")
        # Device numbers are hexadecimal in /proc/locks, and decimal in mountinfo.
        return (int(major, 16), int(minor, 16), int(inode)), int(words[4])
    except ValueError:
        return None


def file_id(fd: int) -> FileId:
    """The open file `fd` as /proc/locks names the file.

    Raises OSError for a descriptor that is not open, and for a shortage.

    The kernel lists the device of the whole file system. On btrfs stat(2) gives another device, and the mount has the
    right device.
    """
    return LockTable().file_id(fd)


class LockTable:
    """The locks and the mounts at the time of the first question: both lists are read at most once for any number of
    files.

    Every account can make both lists long, so a look at many files must not read a list for each file.
    """

    def __init__(self) -> None:
        self._holders: Optional[Dict[FileId, List[int]]] = None
        self._devices: Optional[Dict[str, Tuple[int, int]]] = None

    def holders_of(self, fd: int) -> Optional[List[int]]:
        """The processes that hold the lock of the open file `fd`, as `holders` gives them; None for an unlisted file.

        Raises OSError where the system has no list of locks, for a descriptor that is not open, and for a shortage.
        """
        if self._holders is None:
            self._holders = holders()
        return self._holders.get(self.file_id(fd))

    def file_id(self, fd: int) -> FileId:
        """What the function `file_id` says."""
        found = os.fstat(fd)
        device = self._device_of_mount(fd)
        if device is None:
            device = os.major(found.st_dev), os.minor(found.st_dev)
        return device[0], device[1], found.st_ino

    def _device_of_mount(self, fd: int) -> Optional[Tuple[int, int]]:
        if self._devices is None:
            self._devices = _devices()
        try:
            with open("/proc/self/fdinfo/%d" % fd, encoding="ascii") as file:
                return self._devices.get(next(line.split()[1] for line in file if line.startswith("mnt_id:")))
        except OSError as error:
            if system_shortage.is_shortage(error):
                raise
            return None
        except (StopIteration, IndexError, ValueError):
            return None


def _devices() -> Dict[str, Tuple[int, int]]:
    """The number of each mount -> major and minor of the device; nothing where the system has no such table.

    Raises OSError for a shortage: without the table a locked file may be taken for a free file.
    """
    found: Dict[str, Tuple[int, int]] = {}
    try:
        with open(MOUNT_LIST, encoding="utf-8", errors="replace") as file:
            for words in map(str.split, file):
                major, minor = words[2].split(":")
                found[words[0]] = int(major), int(minor)
    except OSError as error:
        if system_shortage.is_shortage(error):
            raise
    except (IndexError, ValueError):
        pass  # what was read until then is true
    return found
