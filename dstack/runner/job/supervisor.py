"""The supervisor of exactly one attempt: takes the slot, waits for `go`, is the job's parent, reports the end.

A supervisor outlives connection, coordinator and runner. The job inherits the descriptors with the locks of the slot
and of `alive`: both stay locked as long as any process of the job lives, even after a kill of the supervisor.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from typing import Any, Dict, NamedTuple, Optional

from dstack.runner.base import disk_room
from dstack.runner.base.processes import become_subreaper, identity
from dstack.runner.base.spool import Attempt, write_json
from dstack.runner.executors.choice import executor_for
from dstack.runner.facts import host_capacity
from dstack.runner.job.process import JobProcess, failed_report
from dstack.runner.queue import slots, tickets
from dstack.runner.queue.sightings import name_supervisor
from dstack.wire import NOT_HELD, REFUSED, STARTED, Refusal
from dstack.wire.job_messages import HoldRequest


class HeldLocks(NamedTuple):
    """The locks of a held attempt, by their descriptors."""

    slot: slots.Slot
    alive: int


def supervise(root: str, order: HoldRequest, control: socket.socket) -> None:
    """Hold the attempt of `order` once the host has all resources, run the job on `go`, and return at the end of the
    job.

    Says over `control`, one line of JSON each: {"waits": why} any number of times, {"held": [GPU]} or {"error": …},
    then {"started": bool}. The end of `control` before `go` makes the verdict REFUSED.
    """
    _detach(control.fileno())
    name_supervisor(order.nonce)
    attempt = Attempt(root, order.nonce)
    try:
        hold = _hold(attempt, order, control)
        if hold is None:
            attempt.decide(REFUSED)
            return
        _send(control, {"held": list(hold.slot.gpus)})
        try:
            _wait_and_run(attempt, hold, control)
        finally:
            slots.give_back(hold.slot)
    except Refusal as refusal:
        _send(control, {"error": refusal.to_json()})
    except OSError as error:
        text = "attempt %s cannot be held: %s" % (attempt.nonce, error)
        hint = getattr(error, "hint", "look at that path on the host, or set `dir:`")
        full = disk_room.refusal(error, "spool", text, hint)
        _send(control, {"error": full.to_json()})
    except Exception as error:
        text = "attempt %s cannot be held: %s: %s" % (attempt.nonce, type(error).__name__, error)
        _send(control, {"error": Refusal("bug", text, "report this").to_json()})


def _detach(keep: int) -> None:
    """Close every descriptor of the runner's except the control socket, and reset signals."""
    # What a login or the runner ignores or blocks, a job would inherit.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    for name in os.listdir("/dev/fd"):
        fd = int(name)
        if fd > 2 and fd != keep:
            try:
                os.close(fd)
            except OSError:
                pass  # the descriptor of the listing itself
    os.chdir("/")
    become_subreaper()


def _hold(attempt: Attempt, order: HoldRequest, control: socket.socket) -> Optional[HeldLocks]:
    attempt.make()
    alive = attempt.lock_alive()
    if attempt.read_verdict() is not None:
        raise Refusal(NOT_HELD, "attempt %s was decided already" % attempt.nonce, "take a new nonce")
    attempt.reserve()
    write_json(attempt.supervisor, identity(os.getpid()))
    request = slots.SlotRequest(
        nonce=attempt.nonce,
        demand=tickets.demand_of(order.demand.to_json()),
        capacity=host_capacity(order.slots, order.gpu_shares),
        priority=order.priority,
        title=order.title,
    )
    slot = slots.take_slot(
        attempt.root,
        request,
        lambda seconds: _wait_for_hangup(control, seconds),
        lambda text: _send(control, {"waits": text}),
    )
    if slot is None:
        return None
    os.close(os.open(attempt.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600))
    return HeldLocks(slot, alive)


def _wait_for_hangup(control: socket.socket, seconds: float) -> bool:
    ready, _, _ = select.select([control], [], [], seconds)
    if not ready:
        return False
    try:
        # Without taking the byte: the line of `go` may have come, and is read later.
        return not control.recv(1, socket.MSG_PEEK)
    except OSError:
        return True


def _send(control: socket.socket, message: Dict[str, Any]) -> None:
    try:
        control.sendall(json.dumps(message).encode("utf-8") + b"\n")
    except OSError:
        pass  # nobody listens any more; what counts stands in the spool


def _read_line(control: socket.socket) -> Optional[Dict[str, Any]]:
    """One line of JSON; None when the other end is gone before the end of the line."""
    line = bytearray()
    while not line.endswith(b"\n"):
        try:
            data = control.recv(1 << 16)
        except OSError:
            return None
        if not data:
            return None
        line += data
    message = json.loads(line.decode("utf-8", "surrogateescape"))
    return message if isinstance(message, dict) else None


def _wait_and_run(attempt: Attempt, hold: HeldLocks, control: socket.socket) -> None:
    order = _read_line(control)
    if order is None:
        attempt.decide(REFUSED)
        return
    record = attempt.read_order()
    if record is None:
        attempt.decide(REFUSED)
        raise Refusal("prepare", "attempt %s was not prepared" % attempt.nonce, "send `prepare` before `go`")
    # From here on a signal is a wish to be looked at, and no end of this process.
    executor = executor_for(attempt, record)
    job = JobProcess(attempt, record, executor, (hold.slot.fd, hold.alive), hold.slot.gpus)
    if attempt.decide(STARTED) != STARTED:
        _send(control, {"started": False})
        return
    secrets: Dict[str, str] = order["environment"]
    try:
        job.start(secrets)
        _send(control, {"started": True})
        control.close()
        job.run()
    except Exception as error:
        # Whatever goes wrong in here, the job must not be left without an end that others can read.
        job.abandon()
        attempt.write_exit(failed_report("the supervisor failed: %s: %s" % (type(error).__name__, error)))
