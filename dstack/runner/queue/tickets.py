"""A ticket of the host's queue as a file: the file name, the form of the body, and what a malformed ticket counts as.

Every account of the host may write tickets, so a body is foreign input: each number, text and list has a bound, and a
single broken bound makes the whole body malformed. A malformed ticket counts as one slot, without a GPU, while its file
is locked.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import re
import stat
from functools import lru_cache
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, NoReturn, Optional, Tuple

from dstack.runner.base import file_locks, system_shortage
from dstack.runner.base.spool import try_lock
from dstack.runner.queue.scheduler import ResourceDemand, Ticket
from dstack.wire import Refusal

# One size for all bodies: a single write replaces all of the former body.
TICKET_BYTES = 4096
"""Bytes of a ticket, padded with spaces."""
MAX_TEXT_CHARACTERS = 200
"""Characters of the title, and of the name of a GPU."""
MAX_STRAYS = 100
"""Files of one account that one scan looks at although no ticket can be in them: unreadable, or no plain files."""
CANCEL_CHECK_FILES = 64
"""Files between two questions whether the scan is cancelled."""
MAX_TICKET_GPUS = 256
"""The largest number of GPUs in a ticket."""
NUMBER_BOUNDS: Dict[str, Tuple[int, int]] = {
    "priority": (-100, 100),
    "cpu": (0, 1 << 20),
    "memory": (0, 1 << 62),
    "gpus": (0, MAX_TICKET_GPUS),
    "gpu_memory": (0, 1 << 62),
    "index": (0, 4095),
}
"""Least and most of each number. Memory in bytes; `index` is the number of one GPU."""

_NAME = re.compile(r"[0-9]{20}-", re.ASCII)
_KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISLNK, "a link"), (stat.S_ISREG, "a file"))


class MalformedError(Exception):
    """A body is not the body of a ticket; the message names the fault."""


class ScanCancelledError(Exception):
    """The scan was cancelled before its end."""


class TicketFile(NamedTuple):
    """One file of the queue. `fault` says what is wrong with a malformed ticket, "" for a good ticket.

    `counts`: the file is locked, so a process of the attempt lives. Good tickets that do not count are left out of
    every list.
    """

    ticket: Ticket
    path: str
    fault: str = ""
    counts: bool = True


def demand_of(value: object) -> ResourceDemand:
    """A demand from JSON, where an absent field asks for nothing. Raises Refusal for a field out of bounds."""
    try:
        return _demand(value if isinstance(value, dict) else {})
    except MalformedError as error:
        raise Refusal("request", "hold: field 'demand' makes no sense: %s" % error) from None


def title_of(text: str) -> str:
    """A title cut and cleaned for a ticket: at most MAX_TEXT_CHARACTERS, all printable."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:MAX_TEXT_CHARACTERS])


def encode(ticket: Ticket) -> bytes:
    """The body of a ticket, TICKET_BYTES long; a title without room is cut."""
    title = ticket.title
    while True:
        body = {
            "title": title,
            "priority": ticket.priority,
            "gpus": None if ticket.gpus is None else list(ticket.gpus),
            "demand": ticket.demand._asdict(),
        }
        data = json.dumps(body, separators=(",", ":")).encode("ascii")
        if len(data) <= TICKET_BYTES or not title:
            return data.ljust(TICKET_BYTES)
        title = title[:-1]


def decode(order: str, body: bytes, user: str) -> Ticket:
    """The ticket in `body`; raises MalformedError for everything that `encode` does not write."""
    try:
        value = json.loads(body.decode("ascii"), parse_float=_no_number, parse_constant=_no_number, parse_int=_integer)
    except RecursionError:
        raise MalformedError("it is nested too deep") from None
    except ValueError:
        raise MalformedError("it is not JSON") from None
    if not isinstance(value, dict):
        raise MalformedError("it is not an object")
    gpus = value.get("gpus", 0)
    if gpus is not None and (not isinstance(gpus, list) or len(gpus) > MAX_TICKET_GPUS):
        raise MalformedError("'gpus' is not a list of at most %d" % MAX_TICKET_GPUS)
    asked = value.get("demand")
    if not isinstance(asked, dict):
        raise MalformedError("'demand' is not an object")
    return Ticket(
        order,
        _demand(asked),
        _whole("priority", value.get("priority")),
        None if gpus is None else tuple(_whole("index", index) for index in gpus),
        _text("title", value.get("title")),
        user,
    )


def _demand(fields: Mapping[str, Any]) -> ResourceDemand:
    numbers = [_whole(name, fields.get(name, 0)) for name in ("cpu", "memory", "gpus", "gpu_memory")]
    cpu, memory, gpus, gpu_memory = numbers
    return ResourceDemand(cpu, memory, gpus, _text("gpu_name", fields.get("gpu_name", "")), gpu_memory)


def _whole(name: str, value: object) -> int:
    least, most = NUMBER_BOUNDS[name]
    if type(value) is not int or not least <= value <= most:
        raise MalformedError("%r is not a whole number from %d to %d" % (name, least, most))
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT_CHARACTERS or not value.isprintable():
        raise MalformedError("%r is not a printable text of at most %d characters" % (name, MAX_TEXT_CHARACTERS))
    return value


def _no_number(text: str) -> NoReturn:
    raise MalformedError("%.20s is not a whole number" % text)


def _integer(text: str) -> int:
    if len(text) > 20:
        raise MalformedError("a number has %d digits" % len(text))
    return int(text)


class QueueScan:
    """One scan of all folders of the queue: what all files share, and the bounds of the scan.

    Any account may fill the folders, and the scanning process has the queue's lock. So the work for each file is small
    and constant, `skipped_files` counts the files past the MAX_STRAYS of their account, and a true `is_cancelled()`
    ends the scan.
    """

    def __init__(self, is_cancelled: Callable[[], bool] = lambda: False) -> None:
        self.locks = file_locks.LockTable()
        self.skipped_files = 0
        self._is_cancelled = is_cancelled
        self._files = 0
        self._strays: Dict[int, int] = {}

    def count_file(self) -> None:
        """Count one more file; raises ScanCancelledError when the scan is cancelled."""
        self._files += 1
        if self._files % CANCEL_CHECK_FILES == 0 and self._is_cancelled():
            raise ScanCancelledError

    def admits(self, uid: int) -> bool:
        """Whether the scan looks at one more stray of the account; if not, `skipped_files` counts the file."""
        strays = self._strays.get(uid, 0)
        if strays >= MAX_STRAYS:
            self.skipped_files += 1
            return False
        self._strays[uid] = strays + 1
        return True


def read_folder(folder: str, scan: Optional[QueueScan] = None) -> List[TicketFile]:
    """Every ticket of the folder that counts, and every malformed ticket; call with the queue locked.

    The process behind an unlocked file is gone: the file is left out, and removed where this account may remove files.
    The scan looks at every readable plain file; of all other files only at the number that `scan` admits. No ticket is
    among the rest: a ticket is made readable for every account before the ticket counts.

    Raises OSError when the folder cannot be listed, or when a shortage (`system_shortage.py`) hides any file; raises
    ScanCancelledError when the scan is cancelled.
    """
    scan = scan or QueueScan()
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            scan.count_file()
            each = _read_file(entry.path, entry.name, scan) if _NAME.match(entry.name) else None
            if each is not None:
                found.append(each)
    return found


def _read_file(path: str, name: str, scan: QueueScan) -> Optional[TicketFile]:
    try:
        # Without O_NONBLOCK a planted pipe would hold the scan, and with it the lock of the queue.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if system_shortage.is_shortage(error):
            raise
        return _read_unreadable(path, name, scan)
    user = ""
    try:
        status = os.fstat(fd)
        plain = stat.S_ISREG(status.st_mode)
        if not plain and not scan.admits(status.st_uid):
            return None
        # Shared, because sightings try the same lock without the lock of the queue: two observers are no owner.
        counts = not try_lock(fd, fcntl.LOCK_SH)
        if not counts and plain:
            os.unlink(path)
            return None
        user = account_name(status.st_uid)
        if not plain:
            return _malformed_ticket(name, path, user, "it is %s" % _kind(status.st_mode), counts)
        if status.st_size != TICKET_BYTES:
            return _malformed_ticket(
                name, path, user, "it has %d bytes, and a ticket has %d" % (status.st_size, TICKET_BYTES)
            )
        return TicketFile(decode(name, os.pread(fd, TICKET_BYTES, 0), user), path)
    except MalformedError as error:
        return _malformed_ticket(name, path, user, str(error))
    except OSError as error:
        if system_shortage.is_shortage(error):
            raise
        return None  # it ended a moment ago and is another account's to remove
    finally:
        os.close(fd)


def _read_unreadable(path: str, name: str, scan: QueueScan) -> Optional[TicketFile]:
    """The entry for a file that cannot be opened: only the kernel's list of locks says whether the owner lives."""
    try:
        fd = os.open(path, getattr(os, "O_PATH", os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if system_shortage.is_shortage(error):
            raise
        return None
    try:
        status = os.fstat(fd)
        if not scan.admits(status.st_uid):
            return None
        counts = scan.locks.holders_of(fd) is not None
        plain = stat.S_ISREG(status.st_mode)
        fault = "it cannot be read" if plain else "it is %s" % _kind(status.st_mode)
        return _malformed_ticket(name, path, account_name(status.st_uid), fault, counts)
    except OSError as error:
        if system_shortage.is_shortage(error):
            raise
        return None
    finally:
        os.close(fd)


def _malformed_ticket(order: str, path: str, user: str, fault: str, counts: bool = True) -> TicketFile:
    return TicketFile(Ticket(order, ResourceDemand(), 0, (), "", user), path, fault, counts)


def _kind(mode: int) -> str:
    return next((word for test, word in _KINDS if test(mode)), "a device or socket")


@lru_cache(maxsize=1024)
def account_name(uid: int) -> str:
    """The name of an account, the number of an account without a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
