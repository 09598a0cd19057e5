"""The queue of the host: one ticket file for each attempt that waits or runs, of all users.

A ticket counts exactly as long as the file is locked by flock: by the supervisor and, through the inherited descriptor,
by every process of the job. So whichever process is killed, no slot is free while the job of the slot runs, and no slot
leaks. All reads and changes happen under one lock, held for milliseconds; a slot and its GPUs are taken together or not
at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import Any, Callable, Iterator, List, NamedTuple, Optional, Tuple

from dstack.runner.base import system_shortage
from dstack.runner.queue import devices, folders, queue_lock, tickets
from dstack.runner.queue.queue_lock import WaitPolicy
from dstack.runner.queue.scheduler import Capacity, Card, ResourceDemand, Ticket, decide, impossibility
from dstack.runner.queue.tickets import TicketFile
from dstack.wire import Refusal
from dstack.wire.host_messages import QueueAnswer, TicketAnswer
from dstack.wire.job_messages import JobDemand

MAX_SLOTS = 4096
"""The largest number of slots of a host."""
MAX_LISTED_TICKETS = 500
"""Tickets in one list of the queue: as many as fit into one answer."""
GPU_ANSWER_AGE_S = 0.5
"""Seconds during which an answer of nvidia-smi counts as fresh."""
GPUS_UNKNOWN = "nvidia-smi does not answer"
QUEUE_UNREADABLE = "the queue cannot be read"
LIST_TIMEOUT_S = 5.0
"""Seconds that a list of the queue waits for the lock."""


class SlotRequest(NamedTuple):
    """The wish of one attempt, and the capacity of the host without GPUs (every try counts the GPUs anew)."""

    nonce: str
    demand: ResourceDemand
    capacity: Capacity
    priority: int
    title: str


class Slot(NamedTuple):
    """A taken slot: the GPUs, the descriptor with the lock on the ticket, and the path of the ticket."""

    gpus: Tuple[int, ...]
    fd: int
    path: str


def places(root: str = "") -> List[str]:
    """All folders whose tickets count for this account; `root` is the folder of dstack on this host (`dir:`)."""
    return folders.ticket_folders(root)


def take_slot(
    root: str,
    request: SlotRequest,
    wait_for_cancel: Callable[[float], bool],
    report: Callable[[str], None] = lambda text: None,
) -> Optional[Slot]:
    """Wait in the queue until the host has everything in `request`, and take all of it at once; None when the wait was
    cancelled.

    `wait_for_cancel(seconds)` is called between two tries: it waits at most `seconds` for a cancellation and returns
    True for one. `report` gets the reason why the queue itself is unusable for now, and "" once the queue is usable
    again. Raises Refusal when this host can never fulfil the request, or when the queue cannot be used.
    """
    capacity = request.capacity
    if not 1 <= capacity.slots <= MAX_SLOTS:
        raise Refusal("slots", "a host has 1 to %d slots, not %r" % (MAX_SLOTS, capacity.slots))
    survey = _GpuSurvey(request.demand.gpus > 0)
    impossible = impossibility(capacity._replace(cards=survey.now()), request.demand)
    if impossible:
        raise Refusal("slots", impossible, "ask for less under `resources:`, or add a host that has it")
    queue = _Queue(root, WaitPolicy(wait_for_cancel, report))
    own = queue.enter(request)
    if own is None:
        return None
    try:
        began = time.monotonic()
        while True:
            gpus = queue.start(own, capacity._replace(cards=survey.now()))
            if gpus is not None:
                return Slot(gpus, own.keep(), own.path)
            # Whether an earlier ticket can ever get its GPUs decides what a job without GPUs leaves free for it.
            survey.needed = survey.needed or queue.gpus_awaited
            waited = time.monotonic() - began
            # A slot that is about to be free is taken at once; a long wait costs the host less.
            if wait_for_cancel(0.01 if waited < 2 else 0.05):
                return None
    finally:
        own.leave()


def give_back(slot: Slot) -> None:
    """Remove the ticket of an attempt without living processes; the lock goes with the last process."""
    try:
        os.unlink(slot.path)
    except OSError:
        pass  # an unlocked ticket counts for nothing, and whoever comes next removes it


def list_queue(root: str, capacity: Capacity) -> QueueAnswer:
    """The queue of this host: `tickets`, the oldest first, and how many `more` there are.

    Raises Refusal: with the holder's name, when the lock of the queue cannot be taken within LIST_TIMEOUT_S; and with
    the cause, when a shortage keeps the queue from being read.
    """
    now = time.clock_gettime(_HOST_CLOCK)
    found, skipped_files = _Queue(root, WaitPolicy(_sleep, timeout_s=LIST_TIMEOUT_S)).read_tickets()
    found.sort(key=lambda each: each.ticket.order)
    living = [each.ticket for each in found if each.counts]
    cards = _cards_for(living)
    there = capacity._replace(cards=cards)
    with _refusing(QUEUE_UNREADABLE):
        unfit = folders.unusable_folders(root)
    items = [_item(each, living, there, now) for each in found[:MAX_LISTED_TICKETS]]
    if cards is None:
        items = [each.replace(why=GPUS_UNKNOWN) if each.gpus is None and each.demand.gpus else each for each in items]
    return QueueAnswer(
        tickets=tuple(items),
        more=len(found) - len(items) + skipped_files,
        shared=folders.is_shared(),
        unfit=tuple(unfit),
    )


def _cards_for(living: List[Ticket]) -> Optional[Tuple[Card, ...]]:
    """The GPUs of the host where a ticket wants any; None where nvidia-smi does not answer."""
    survey = _GpuSurvey(False)
    survey.needed = any(ticket.demand.gpus for ticket in living)
    return survey.now() if survey.needed else ()


def _item(entry: TicketFile, living: List[Ticket], capacity: Capacity, now: float) -> TicketAnswer:
    """One ticket in the answer: null `gpus` while waiting, `since` in seconds, `why` says why the ticket waits.

    A malformed ticket has `fault` and `file` besides; without `counts` a malformed ticket takes no slot.
    """
    ticket = entry.ticket
    why: Any = ""
    if ticket.gpus is None:
        why = decide(capacity, [other for other in living if other is not ticket], ticket)
    item = TicketAnswer(
        title=ticket.title,
        user=ticket.user,
        priority=ticket.priority,
        gpus=ticket.gpus,
        since=max(0, int(now - int(ticket.order.partition("-")[0]) / 1e9)),
        why=why if isinstance(why, str) else "about to start",
        demand=JobDemand(**ticket.demand._asdict()),
    )
    if entry.fault:
        return item.replace(fault=entry.fault, file=tickets.title_of(entry.path), counts=entry.counts)
    return item


@contextlib.contextmanager
def _refusing(text: str, hint: str = system_shortage.TRY_LATER_HINT) -> Iterator[None]:
    """Turn every OSError within the block into a Refusal."""
    try:
        yield
    except OSError as error:
        raise system_shortage.refusal(error, "slots", text, hint) from None


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


_HOST_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""The same clock for all processes of a host, containers included: gives tickets their order."""


class _GpuSurvey:
    """The GPUs of the host, with a fresh answer of nvidia-smi; unknown as long as no ticket needs any.

    `wanted`: the own job demands GPUs. `needed`: some ticket does, and nvidia-smi is asked.
    """

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self.needed = wanted
        self._asked = 0.0
        self._found: Optional[Tuple[Card, ...]] = None

    def now(self) -> Optional[Tuple[Card, ...]]:
        """The GPUs, None for unknown ones. Raises Refusal when nvidia-smi does not answer the first question for a job
        that demands GPUs."""
        if self.needed and (not self._asked or time.monotonic() - self._asked > GPU_ANSWER_AGE_S):
            found = devices.list_cards()
            if found is None and self._wanted and not self._asked:
                raise Refusal("slots", GPUS_UNKNOWN, "try `nvidia-smi` on the host")
            if found is not None:
                self._found = tuple(found)
            elif self._found is not None:
                # Without a fresh answer any GPU may be in use by another program, so that none is given away.
                self._found = tuple(card._replace(used=True) for card in self._found)
            self._asked = time.monotonic()
        return self._found


class _OwnTicket:
    """The ticket of this process."""

    def __init__(self, path: str, fd: int, ticket: Ticket) -> None:
        self.path, self.ticket = path, ticket
        self._fd: Optional[int] = fd

    def write(self, ticket: Ticket) -> None:
        """Write the whole body by a single call: a killed process has written all of the body or nothing."""
        assert self._fd is not None
        os.pwrite(self._fd, tickets.encode(ticket), 0)
        self.ticket = ticket

    def keep(self) -> int:
        """Hand the descriptor over to the caller."""
        assert self._fd is not None
        fd, self._fd = self._fd, None
        return fd

    def leave(self) -> None:
        """Give up the place in the queue, unless the descriptor was handed over."""
        if self._fd is not None:
            try:
                os.unlink(self.path)
            except OSError:
                # Without a lock the ticket counts for nothing, and the next look removes the file.
                pass
            os.close(self._fd)
            self._fd = None


class _Queue:
    """The folders of tickets. No file there is trusted: the first folder may be open to all users.

    Each method waits for the lock by `policy`, and returns None when the wait was cancelled.
    """

    def __init__(self, root: str, policy: WaitPolicy) -> None:
        self._root = root
        with _refusing("the slots of this host cannot be used"):
            self._folder = folders.folder_for_new_tickets(root)
        self._policy = policy
        self._last_report = ""
        self.gpus_awaited = False
        """Whether some other ticket waited for GPUs when the queue was read last."""

    def _folders(self) -> List[str]:
        """The folder of the own ticket and all others that count, in the order in which every process locks them."""
        found = folders.ticket_folders(self._root)
        return found if self._folder in found else [self._folder, *found]

    def _lock(self) -> Optional[queue_lock.QueueLock]:
        return queue_lock.take_lock(self._folders, self._policy)

    def enter(self, request: SlotRequest) -> Optional[_OwnTicket]:
        """Take a ticket, the youngest of all."""
        lock = self._lock()
        if lock is None:
            return None
        with _refusing("no ticket can be taken", "make room in %s" % self._folder), lock:
            return self._enter_locked(request)

    def _enter_locked(self, request: SlotRequest) -> _OwnTicket:
        # Of one width, so that names sort by age; the nonce tells apart two attempts of the same moment.
        order = "%020d-%s" % (time.clock_gettime_ns(_HOST_CLOCK), request.nonce[:16])
        path = os.path.join(self._folder, order)
        ticket = Ticket(order, request.demand, request.priority, None, tickets.title_of(request.title))
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        own = _OwnTicket(path, fd, ticket)
        try:
            os.fchmod(fd, 0o644)  # whatever the umask: every account must be able to read the ticket
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            own.write(ticket)
        except OSError:
            own.leave()
            raise
        return own

    def start(self, own: _OwnTicket, capacity: Capacity) -> Optional[Tuple[int, ...]]:
        """The GPUs (often none) of a ticket that may start, now recorded in the ticket; None for a ticket that must
        wait."""
        lock = self._lock()
        if lock is None:
            return None
        with lock:
            try:
                found = self._read(lock)
            except OSError as error:
                if not system_shortage.is_shortage(error):
                    raise
                # A ticket that could not be read may hold everything: take nothing now, and look again.
                self._report_change("%s: %s" % (QUEUE_UNREADABLE, system_shortage.cause(error)))
                return None
            self._report_change("")
            if found is None:
                return None
            others = [each.ticket for each in found[0] if each.counts and each.path != own.path]
            self.gpus_awaited = any(other.gpus is None and other.demand.gpus for other in others)
            decision = decide(capacity, others, own.ticket)
            if isinstance(decision, str):
                return None
            own.write(own.ticket._replace(gpus=decision))
            return decision

    def _report_change(self, text: str) -> None:
        """Report at each change why the queue cannot be read, "" for a readable queue."""
        if text != self._last_report:
            self._policy.report(text)
            self._last_report = text

    def read_tickets(self) -> Tuple[List[TicketFile], int]:
        """Every ticket that counts, every malformed ticket, and the number of further files without a ticket.

        Both are empty when the wait was cancelled. Raises Refusal when the folders cannot be read.
        """
        lock = self._lock()
        if lock is None:
            return [], 0
        with _refusing(QUEUE_UNREADABLE), lock:
            return self._read(lock) or ([], 0)

    def _read(self, lock: queue_lock.QueueLock) -> Optional[Tuple[List[TicketFile], int]]:
        """The result of `read_tickets`. Under the lock no other process reads or changes a ticket, and none is half
        written."""
        scan = tickets.QueueScan(lambda: self._policy.wait_for_cancel(0))
        try:
            return [each for folder in lock.folders for each in tickets.read_folder(folder, scan)], scan.skipped_files
        except tickets.ScanCancelledError:
            return None
