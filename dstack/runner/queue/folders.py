"""Where the queue of a host lies: one folder for all accounts if root has made the folder, else a private folder.

Any account can be the first to take a name under /var/tmp. So there are several private folders, in a fixed order, and
the first that belongs to this account is in use. Earlier runs may have used another folder: tickets in all of them
count.
"""

from __future__ import annotations

import os
import stat
from typing import Iterator, List

from dstack.runner.base import system_shortage
from dstack.runner.base.file_locks import file_id
from dstack.runner.queue.tickets import account_name
from dstack.wire import Refusal

SHARED_QUEUE = "/var/lib/dstack-slots"
"""Made by root once, for all accounts of the host."""
PRIVATE_QUEUE = "/var/tmp/dstack-slots-%d"  # noqa: S108 - checked to be this account's own before it is used
RUNTIME_FOLDER = "/run/user/%d"
LINGER_FOLDER = "/var/lib/systemd/linger"
"""Has a file for each account whose RUNTIME_FOLDER outlives a logout; else the jobs would outlive their tickets."""
LOCK_FILE = "lock"
LOCAL_FILE_SYSTEMS = frozenset(
    ("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "ramfs", "reiserfs", "tmpfs", "xfs", "zfs")
)
"""File systems whose flock locks hold between all processes of this host. On a network file system a lock may not hold,
or may hang."""


def is_shared() -> bool:
    """Whether one queue serves all accounts; False for a queue of this account alone."""
    return bool(os.environ.get("DSTACK_SLOTS_DIR")) or _is_made_by_root(SHARED_QUEUE)


def ticket_folders(root: str = "") -> List[str]:
    """Every existing folder whose tickets count for this account. A set DSTACK_SLOTS_DIR, for tests, is the only
    folder.

    `root` is the folder of dstack on this host (`dir:`). The order is fixed, so that two processes that lock several
    folders never wait for each other. Raises OSError when a shortage (`system_shortage.py`) hides which folders count.
    """
    forced = os.environ.get("DSTACK_SLOTS_DIR")
    if forced:
        return [forced] if os.path.isdir(forced) else []
    private = [path for path in _private_folders(root) if not _why_foreign(path) and _is_trusted(path)]
    return ([SHARED_QUEUE] if _is_made_by_root(SHARED_QUEUE) else []) + private


def folder_for_new_tickets(root: str) -> str:
    """The folder for new tickets, made if missing; raises Refusal when no folder is usable.

    Raises OSError for a shortage, as `ticket_folders` does.
    """
    forced = os.environ.get("DSTACK_SLOTS_DIR")
    if forced:
        return _make_forced_folder(forced)
    if _is_made_by_root(SHARED_QUEUE):
        return SHARED_QUEUE
    for path in _private_folders(root):
        if not _why_unusable(path):
            return path
    raise Refusal(
        "slots",
        "the slots of this host cannot be used: %s" % "; ".join(unusable_folders(root)),
        "as root: remove what is in the way, or make a queue for all accounts (`dstack hosts check` says how)",
    )


def unusable_folders(root: str) -> List[str]:
    """Why the private folders before the folder in use are not usable, with their owners; empty where root made a
    queue.

    Raises OSError for a shortage, as `ticket_folders` does.
    """
    if is_shared():
        return []
    reasons = []
    for path in _private_folders(root):
        reason = _why_unusable(path)
        if not reason:
            break
        reasons.append(reason)
    return reasons


def _private_folders(root: str) -> Iterator[str]:
    """Each private folder, in order. A runtime folder that is emptied at logout does not count: jobs outlive a
    logout."""
    uid, usual = os.getuid(), os.path.expanduser("~/.dstack")
    yield PRIVATE_QUEUE % uid
    if os.path.isabs(usual):
        yield os.path.join(usual, "slots")
    if os.path.exists(os.path.join(LINGER_FOLDER, account_name(uid))):
        yield os.path.join(RUNTIME_FOLDER % uid, "dstack-slots")
    if root and os.path.realpath(root) != os.path.realpath(usual):
        yield os.path.join(root, "slots")


def _why_unusable(path: str) -> str:
    """Why the folder is not usable, "" for an existing folder of this account's own; makes a missing folder."""
    try:
        for folder in (os.path.dirname(path), path):
            _make(folder)
    except OSError as error:
        return str(error)
    return _why_foreign(path) or ("" if _is_trusted(path) else "%s is not on a disk of this host" % path)


def _make(path: str) -> None:
    """Make a folder of mode 0700, whatever the umask; an existing file or folder is left for the caller to check."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    os.chmod(path, 0o700)


def _is_trusted(path: str) -> bool:
    return path == PRIVATE_QUEUE % os.getuid() or is_local(path)


def _why_foreign(path: str) -> str:
    """Why an existing folder is not private to this account, "" for a private folder; a missing folder is an error
    too."""
    try:
        found = os.lstat(path)
    except OSError as error:
        return str(error)
    if found.st_uid != os.getuid():
        return "%s belongs to %s" % (path, account_name(found.st_uid))
    if not stat.S_ISDIR(found.st_mode):
        return "%s is not a folder" % path
    if found.st_mode & 0o022:
        return "%s can be written by others" % path
    return ""


def _make_forced_folder(path: str) -> str:
    try:
        _make(path)
        found = os.lstat(path)
    except OSError as error:
        raise Refusal("slots", "the slots of this host cannot be used: %s" % error, "set DSTACK_SLOTS_DIR") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (0, os.getuid()):
        text = "the slots of this host cannot be used: %s belongs to %s" % (path, account_name(found.st_uid))
        raise Refusal("slots", text, "set DSTACK_SLOTS_DIR to another folder")
    return path


def _is_made_by_root(path: str) -> bool:
    """Whether root has made the folder as needed: only the owner of a ticket can take the ticket away."""
    try:
        found, lock = os.lstat(path), os.lstat(os.path.join(path, LOCK_FILE))
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and bool(found.st_mode & stat.S_ISVTX) and found.st_uid == lock.st_uid == 0


def is_local(path: str) -> bool:
    """Whether the folder lies on a file system of this host; False where the system does not say.

    Raises OSError for a shortage, which says nothing about the folder.
    """
    try:
        return _lies_on_local(path)
    except OSError as error:
        if system_shortage.is_shortage(error):
            raise
        return False
    except (ValueError, IndexError):
        return False


def _lies_on_local(path: str) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        major, minor, _ = file_id(fd)
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            mounts = [line.split() for line in file]
        return any(
            # Any number of optional fields may stand before the "-" (proc(5)).
            words[words.index("-") + 1] in LOCAL_FILE_SYSTEMS
            for words in mounts
            if words[2] == "%d:%d" % (major, minor)
        )
    finally:
        os.close(fd)
