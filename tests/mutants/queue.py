"""Mutants of the queue of a host against its worst user, and numbers of foreign hosts."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        name="shortage-hides-tickets",
        breaks="tickets hide from a process without free descriptors: its GPU is booked twice",
        file="dstack/runner/base/system_shortage.py",
        old="    return error.errno in _LACKS\n",
        new="    return False\n",
        tests=("tests/unit/runner/queue/test_tickets_search.py",),
    ),
    Mutant(
        name="shortage-hides-a-folder",
        breaks="a folder whose lock cannot be opened by a shortage is left out with its tickets: a slot is given twice",
        file="dstack/runner/queue/queue_lock.py",
        old="            if system_shortage.is_shortage(error):\n                raise\n",
        new="",
        tests=("tests/unit/runner/queue/test_queue_shortage.py",),
    ),
    Mutant(
        name="malformed-ticket-is-fatal",
        breaks="a ticket whose body is nested too deep, of another account, stops everybody's queue",
        file="dstack/runner/queue/tickets.py",
        old="    except RecursionError:\n        raise MalformedError",
        new="    except ZeroDivisionError:\n        raise MalformedError",
        tests=("tests/unit/runner/queue/test_tickets.py",),
    ),
    Mutant(
        name="malformed-ticket-is-free",
        breaks="a malformed ticket that is locked counts for nothing, so its owner may have any number of slots",
        file="dstack/runner/queue/slots.py",
        old="if each.counts and each.path != own.path]",
        new="if each.counts and not each.fault and each.path != own.path]",
        tests=("tests/hostile/test_queue_tickets.py",),
    ),
    Mutant(
        name="queue-lock-blocks",
        breaks="the lock of the queue is waited for without an end, whoever keeps it",
        file="dstack/runner/queue/queue_lock.py",
        old="if not try_lock(fd, fcntl.LOCK_EX)), None)",
        new="if fcntl.flock(fd, fcntl.LOCK_EX)), None)",
        tests=("tests/unit/runner/queue/test_queue_lock.py",),
    ),
    Mutant(
        name="locks-read-for-each-file",
        breaks="one look at the queue reads the kernel's list of locks for each file that cannot be opened",
        file="dstack/runner/base/file_locks.py",
        old="        if self._holders is None:\n",
        new="        if True:\n",
        tests=("tests/unit/runner/queue/test_tickets_search.py",),
    ),
    Mutant(
        name="strays-without-bound",
        breaks="every file of an account that can be no ticket is looked at, and takes a slot",
        file="dstack/runner/queue/tickets.py",
        old="        if strays >= MAX_STRAYS:\n",
        new="        if False:\n",
        tests=("tests/hostile/test_queue_flood.py",),
    ),
    Mutant(
        name="look-never-given-up",
        breaks="a look at a queue full of files goes on, with the queue's lock, though nobody wants it any more",
        file="dstack/runner/queue/tickets.py",
        old="if self._files % CANCEL_CHECK_FILES == 0 and self._is_cancelled():",
        new="if False:",
        tests=("tests/unit/runner/queue/test_tickets_search.py",),
    ),
    Mutant(
        name="one-place-of-the-queue",
        breaks="tickets of this account in another of its private places do not count: a GPU is given twice",
        file="dstack/runner/queue/folders.py",
        old="    return ([SHARED_QUEUE] if _is_made_by_root(SHARED_QUEUE) else []) + private\n",
        new="    return ([SHARED_QUEUE] if _is_made_by_root(SHARED_QUEUE) else []) + private[:1]\n",
        tests=("tests/hostile/test_queue_planted.py",),
    ),
    Mutant(
        name="foreign-numbers-without-bounds",
        breaks="a whole number from a host or a bucket is believed whatever its size",
        file="dstack/core/format/codec.py",
        old='        if not bound.least <= value <= bound.most:\n            raise _misfit(f"a whole number from',
        new='        if False:\n            raise _misfit(f"a whole number from',
        tests=("tests/hostile/test_foreign_numbers.py",),
    ),
    Mutant(
        name="one-bad-run-hides-all",
        breaks="a run whose records make no sense keeps `ps` from showing the others",
        file="dstack/app/queries/runs.py",
        old="            if faults is None:\n                raise\n",
        new="            raise\n",
        tests=("tests/app/queries/test_runs.py",),
    ),
    Mutant(
        name="unknown-gpus-are-none",
        breaks="jobs without GPUs take the cores and slots that a GPU job before them waits for, for ever",
        file="dstack/runner/queue/scheduler.py",
        old='    if capacity.cards is None:\n        return ""\n',
        new='    if capacity.cards is None:\n        return "unknown" if demand.gpus else ""\n',
        tests=("tests/unit/runner/queue/test_devices.py",),
    ),
)
