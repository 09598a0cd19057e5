"""The process that forks supervisors: single-threaded, so that no fork ever copies a lock in a thread's hands.

The runner forks the forker before the first thread starts. An order comes over a stream socket: one JSON line for each
supervisor, together with the descriptor of the supervisor's control socket. The forker ends with the runner;
supervisors do not.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from typing import List

from dstack.runner.job.supervisor import supervise
from dstack.wire import Refusal
from dstack.wire.job_messages import HoldRequest

MAX_ORDER_BYTES = 4096


class Forker:
    """The runner's end. Safe to use from several threads."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self._channel = channel
        self._lock = threading.Lock()

    def fork(self, order: HoldRequest) -> socket.socket:
        """Start a supervisor; returns the control socket to the supervisor. Raises Refusal when the forker is gone."""
        ours, theirs = socket.socketpair()
        line = json.dumps(order.to_json()).encode("ascii") + b"\n"
        try:
            with self._lock:
                socket.send_fds(self._channel, [line], [theirs.fileno()])
        except OSError as error:
            ours.close()
            raise Refusal("nursery", "the runner can start nothing more: %s" % error, "connect anew") from None
        finally:
            theirs.close()
        return ours


def start_forker(root: str, close: List[int]) -> Forker:
    """Start the forker; call before any thread exists. `close` are descriptors for the forker to close."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            for fd in close:
                os.close(fd)
            os.setsid()
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            _serve(theirs, root)
        finally:
            # Without the exit handlers of the runner, of which this process is a copy.
            os._exit(0)
    theirs.close()
    return Forker(pid, ours)


def _serve(channel: socket.socket, root: str) -> None:
    """Fork a supervisor for each line until the runner's end closes."""
    buffer = b""
    # A stream socket keeps no borders: lines and descriptors may come apart.
    pending: List[int] = []
    while True:
        data, fds, _, _ = socket.recv_fds(channel, MAX_ORDER_BYTES, 8)
        if not data:
            return
        pending.extend(fds)
        buffer += data
        while b"\n" in buffer and pending:
            line, _, buffer = buffer.partition(b"\n")
            control = pending.pop(0)
            _fork_twice(channel, root, HoldRequest.from_json(json.loads(line)), control, pending)
            os.close(control)


def _fork_twice(channel: socket.socket, root: str, order: HoldRequest, control: int, others: List[int]) -> None:
    """Fork a supervisor in a session of its own, by two forks: the process between ends, so no runner is the parent."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        channel.close()
        # A copy of another supervisor's socket would hide the end of that supervisor from the runner.
        for fd in others:
            os.close(fd)
        os.setsid()
        if os.fork() == 0:
            supervise(root, order, socket.socket(fileno=control))
    finally:
        os._exit(0)
