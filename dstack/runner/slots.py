"""The queue of the host: one ticket file for each attempt that waits or runs, of all its users.

A ticket counts exactly as long as its file is locked by flock: by the supervisor and, through the inherited descriptor,
by every process of the job. So whoever is killed, nothing is free while its job runs, and nothing leaks. All looks and
changes happen under one lock, which is held for milliseconds; what was taken was taken whole.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import stat
import time
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from dstack.runner import devices
from dstack.runner.grants import Capacity, Card, Demand, Ticket, decide, never
from dstack.runner.refusal import Refusal
from dstack.runner.spool import try_lock

SHARED = "/var/lib/dstack-slots"
"""Made by root once, for all users of the host. Not under $HOME: flock is not to be trusted on network file systems."""
OWN = "/var/tmp/dstack-slots-%d"  # noqa: S108 - checked to be this user's own before it is used
"""Where root has made nothing: then each account sees its own jobs only."""
LOCK = "lock"
MOST = 4096
TEXT = 200
"""Longest title of a ticket."""
BODY = 4096
CARDS_AGE = 0.5
"""Seconds for which the answer of nvidia-smi is believed."""


class Wanted(NamedTuple):
    """What an attempt waits for, and the capacity that it is granted from (GPUs are looked for at every try)."""

    nonce: str
    demand: Demand
    capacity: Capacity
    priority: int
    title: str


class Slot(NamedTuple):
    """What was taken: its GPUs, the descriptor that holds it, and its ticket's path."""

    gpus: Tuple[int, ...]
    fd: int
    path: str


def shared() -> bool:
    """Whether the queue is that of all users; else of this account alone."""
    return bool(os.environ.get("DSTACK_SLOTS_DIR")) or _is_roots(SHARED)


def folder() -> str:
    """Where the tickets of this host are; DSTACK_SLOTS_DIR is for tests."""
    return os.environ.get("DSTACK_SLOTS_DIR") or (SHARED if _is_roots(SHARED) else OWN % os.getuid())


def _is_roots(path: str) -> bool:
    """Whether root has made the folder as it must be: nobody but the owner of a ticket can take it away."""
    try:
        found, lock = os.lstat(path), os.lstat(os.path.join(path, LOCK))
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and bool(found.st_mode & stat.S_ISVTX) and found.st_uid == lock.st_uid == 0


def take(wanted: Wanted, given_up: Callable[[float], bool]) -> Optional[Slot]:
    """Wait in the queue until everything that is wanted is free, and take it whole.

    `given_up(seconds)` is called between looks: it waits at most that long and says whether nobody wants it any more;
    then the answer is None. Raises Refusal when this host can never give it, or when the queue cannot be used.
    """
    capacity = wanted.capacity
    if not 1 <= capacity.slots <= MOST:
        raise Refusal("slots", "a host has 1 to %d slots, not %r" % (MOST, capacity.slots))
    with _Queue() as queue:
        cards = _Cards(wanted.demand.gpus > 0)
        impossible = never(capacity._replace(cards=tuple(cards.now())), wanted.demand)
        if impossible:
            raise Refusal("slots", impossible, "ask for less under `resources:`, or add a host that has it")
        own = queue.enter(wanted)
        try:
            began = time.monotonic()
            while True:
                now = capacity._replace(cards=tuple(cards.now()))
                gpus = queue.start(own, now)
                if gpus is not None:
                    return Slot(gpus, own.keep(), own.path)
                waited = time.monotonic() - began
                if given_up(0.01 if waited < 2 else 0.05):
                    return None
        finally:
            own.leave()


def give_back(slot: Slot) -> None:
    """Remove the ticket of an attempt of which nothing lives any more; its lock goes with the last process."""
    try:
        os.unlink(slot.path)
    except OSError:
        pass  # an unlocked ticket counts for nothing, and whoever comes next removes it


def listed(capacity: Capacity) -> List[Dict[str, Any]]:
    """The queue as people see it, the oldest first: `title, user, priority, gpus` (null while it waits), `since`
    (seconds ago), `why` it waits, and what it asked for."""
    now = time.clock_gettime(_CLOCK)
    with _Queue() as queue:
        tickets = queue.tickets()
    cards = tuple(_Cards(any(ticket.demand.gpus for ticket in tickets)).now())
    found = []
    for ticket in sorted(tickets, key=lambda ticket: ticket.order):
        others = [other for other in tickets if other is not ticket]
        why = decide(capacity._replace(cards=cards), others, ticket) if ticket.gpus is None else ""
        found.append(
            {
                "title": ticket.title,
                "user": ticket.user,
                "priority": ticket.priority,
                "gpus": None if ticket.gpus is None else list(ticket.gpus),
                "since": max(0, int(now - int(ticket.order.partition("-")[0]) / 1e9)),
                "why": why if isinstance(why, str) else "about to start",
                "demand": ticket.demand._asdict(),
            }
        )
    return found


_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""One for all processes of a host, containers included: it numbers the tickets."""


class _Cards:
    """The GPUs of the host, asked for again when the last answer is old; none where nobody wants any."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._asked = 0.0
        self._found: List[Card] = []

    def now(self) -> List[Card]:
        if self._wanted and (not self._asked or time.monotonic() - self._asked > CARDS_AGE):
            found = devices.cards()
            if found is None and not self._asked:
                raise Refusal("slots", "nvidia-smi does not answer", "try `nvidia-smi` on the host")
            self._found = found if found is not None else [card._replace(used=True) for card in self._found]
            self._asked = time.monotonic()
        return self._found


class _Own:
    """The ticket of this process."""

    def __init__(self, path: str, fd: int, ticket: Ticket) -> None:
        self.path, self.ticket = path, ticket
        self._fd: Optional[int] = fd

    def write(self, ticket: Ticket) -> None:
        """One write of the whole body, so that who is killed over it has written all or nothing."""
        body = {
            "title": ticket.title,
            "priority": ticket.priority,
            "gpus": None if ticket.gpus is None else list(ticket.gpus),
            "demand": ticket.demand._asdict(),
        }
        assert self._fd is not None
        os.pwrite(self._fd, json.dumps(body).encode("ascii").ljust(BODY), 0)
        self.ticket = ticket

    def keep(self) -> int:
        """The descriptor, which the caller has from now on."""
        assert self._fd is not None
        fd, self._fd = self._fd, None
        return fd

    def leave(self) -> None:
        """Give the place in the queue up, unless it was kept."""
        if self._fd is not None:
            try:
                os.unlink(self.path)
            except OSError:
                pass
            os.close(self._fd)
            self._fd = None


class _Queue:
    """The folder of tickets. Nothing in it is trusted: it belongs to all users."""

    def __init__(self) -> None:
        self._folder = folder()
        try:
            self._lock = _open_lock(self._folder)
        except OSError as error:
            raise Refusal(
                "slots",
                "the slots of this host cannot be used: %s" % error,
                "remove %s as root and try again" % self._folder,
            ) from None

    def __enter__(self) -> "_Queue":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def enter(self, wanted: Wanted) -> _Own:
        """Take a ticket, the youngest of all."""
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            order = "%020d-%s" % (time.clock_gettime_ns(_CLOCK), wanted.nonce[:16])
            path = os.path.join(self._folder, order)
            ticket = Ticket(order, wanted.demand, wanted.priority, None, wanted.title[:TEXT])
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            own = _Own(path, fd, ticket)
            os.fchmod(fd, 0o644)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            own.write(ticket)
            return own
        except OSError as error:
            raise Refusal("slots", "no ticket can be taken: %s" % error, "make room in %s" % self._folder) from None
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def start(self, own: _Own, capacity: Capacity) -> Optional[Tuple[int, ...]]:
        """The GPUs of the ticket (often none) if it may start, which is then recorded in it; else None."""
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            others = [ticket for ticket in self._read() if ticket.order != own.ticket.order]
            decision = decide(capacity, others, own.ticket)
            if isinstance(decision, str):
                return None
            own.write(own.ticket._replace(gpus=decision))
            return decision
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def tickets(self) -> List[Ticket]:
        """Every ticket that counts."""
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            return list(self._read())
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _read(self) -> Iterator[Ticket]:
        """The lock must be held: nobody else looks at a ticket meanwhile, nor is one half made."""
        for name in os.listdir(self._folder):
            order = name.partition("-")[0]
            if len(order) != 20 or not order.isdigit():
                continue
            path = os.path.join(self._folder, name)
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError:
                continue
            try:
                found = os.fstat(fd)
                if not stat.S_ISREG(found.st_mode):
                    continue
                if try_lock(fd, fcntl.LOCK_SH):
                    os.unlink(path)
                    continue
                yield _ticket(name, os.pread(fd, BODY, 0), _user(found.st_uid))
            except OSError:
                continue  # it ended a moment ago and is another user's to remove
            finally:
                os.close(fd)


def _ticket(order: str, body: bytes, user: str) -> Ticket:
    """What stands in a ticket; one that makes no sense still has a slot."""
    try:
        value = json.loads(body.decode("ascii"))
        gpus = value["gpus"]
        return Ticket(
            order,
            demand_of(value["demand"]),
            int(value["priority"]),
            None if gpus is None else tuple(int(index) for index in gpus),
            str(value["title"])[:TEXT],
            user,
        )
    except (ValueError, TypeError, KeyError, AttributeError, Refusal):
        return Ticket(order, Demand(), 0, (), "", user)


def demand_of(value: object) -> Demand:
    """A demand from JSON; raises Refusal for one that makes no sense. Absent fields ask for nothing."""
    fields: Mapping[str, Any] = value if isinstance(value, dict) else {}
    numbers = [fields.get(name, 0) for name in ("cpu", "memory", "gpus", "gpu_memory")]
    kind = fields.get("gpu_name", "")
    if not isinstance(kind, str) or not all(type(number) is int and 0 <= number < 2**62 for number in numbers):
        raise Refusal("request", "hold: field 'demand' makes no sense")
    cpu, memory, gpus, gpu_memory = numbers
    return Demand(cpu, memory, gpus, kind, gpu_memory)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _open_lock(path: str) -> int:
    """The queue's lock, made where it is this user's own to make."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (0, os.getuid()):
        raise PermissionError("%s belongs to somebody else" % path)
    lock = os.path.join(path, LOCK)
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        fd = os.open(lock, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o444)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError("%s is not a plain file" % lock)
    return fd
