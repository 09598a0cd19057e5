"""The runner's loop: frames in, one thread for each request, frames out."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import traceback
from typing import Any, Dict, Optional

from dstack import wire
from dstack.private_folder import make_folder
from dstack.runner.base import disk_room
from dstack.runner.base.channel import Request, Writer
from dstack.runner.job.forker import start_forker
from dstack.runner.operations import Operations
from dstack.wire import Refusal
from dstack.wire.host_messages import LONGEST_LEASE_S, CancelRequest
from dstack.wire.message_form import DoneAnswer, Message

INPUT_READ_BYTES = 1 << 18
MAX_REQUESTS = 1024
"""Requests under way at once; more are refused."""


def serve(first: bytes, stdin: int, stdout: int, root: str) -> None:
    """Serve until `stdin` ends or the lease is over, then end this process and, by the end, all held attempts."""
    try:
        os.setsid()
    except OSError:
        pass  # the leader of its group already
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if not os.path.isdir(root):
        make_folder(root)
    # Before the first thread: a fork would copy a lock in the hands of a thread, and not the thread.
    forker = start_forker(root, [stdin, stdout])
    threading.Thread(target=_end_with, args=(forker.pid,), daemon=True).start()
    try:
        _Loop(Operations(root, forker), Writer(stdout)).run(first, stdin)
    except wire.ProtocolError as error:
        sys.stderr.write("dstack: the coordinator's stream is broken: %s\n" % error)
    except Exception:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        # Not sys.exit: threads with requests under way must not keep the runner.
        os._exit(0)


def _end_with(pid: int) -> None:
    """End a runner whose forker was killed: such a runner can start nothing more, and a coordinator connects anew."""
    os.waitpid(pid, 0)
    sys.stderr.write("dstack: the runner's nursery was killed\n")
    sys.stderr.flush()
    os._exit(1)


class _Loop:
    def __init__(self, operations: Operations, writer: Writer) -> None:
        self._operations = operations
        self._writer = writer
        self._lock = threading.Lock()
        self._requests: Dict[int, Request] = {}
        self._lease: Optional[int] = None

    def run(self, first: bytes, stdin: int) -> None:
        reader = wire.FrameReader()
        data = first or os.read(stdin, INPUT_READ_BYTES)
        while data:
            for frame in reader.feed(data):
                if frame.kind == wire.MESSAGE:
                    self._message(wire.unpack_message(frame.payload))
                else:
                    number, piece = wire.unpack_data(frame.payload)
                    request = self._requests.get(number)
                    if request is not None:
                        request.take(piece)
            data = self._more(stdin)

    def _more(self, stdin: int) -> bytes:
        """The next bytes; none at the end of `stdin`, and after a silence as long as the lease."""
        if self._lease is not None and not select.select([stdin], [], [], self._lease)[0]:
            sys.stderr.write("dstack: nothing came from the coordinator for %d s\n" % self._lease)
            return b""
        return os.read(stdin, INPUT_READ_BYTES)

    def _take_lease(self, lease: object) -> None:
        """Let a silence end this runner from here on; an invalid lease changes nothing."""
        if type(lease) is int and 0 < lease <= LONGEST_LEASE_S:
            self._lease = lease

    def _message(self, message: Dict[str, Any]) -> None:
        if message.get("op") == wire.CREDIT:
            self._credit(message)
            return
        if message.get("op") == wire.HELLO:
            self._take_lease(message.get("lease"))
        if not isinstance(message.get("id"), int):
            raise wire.ProtocolError("a request without a number")
        request = Request(message, self._writer, self._finished)
        with self._lock:
            if request.id in self._requests:
                raise wire.ProtocolError("request %d came twice" % request.id)
            self._requests[request.id] = request
        # Each request is a thread: a coordinator gone mad must not take the host's memory.
        if len(self._requests) > MAX_REQUESTS:
            request.fail(Refusal("busy", "more than %d requests at once" % MAX_REQUESTS, "ask again later"))
            return
        threading.Thread(target=self._handle, args=(request,), daemon=True).start()

    def _credit(self, message: Dict[str, Any]) -> None:
        count = message.get("bytes")
        if not isinstance(count, int) or count < 0:
            raise wire.ProtocolError("a credit of no bytes")
        with self._lock:
            request = self._requests.get(message.get("request", 0))
        if request is not None:
            request.credit(count)

    def _finished(self, number: int) -> None:
        with self._lock:
            self._requests.pop(number, None)

    def _handle(self, request: Request) -> None:
        try:
            request.ok(self._answer(request))
        except Refusal as refusal:
            request.fail(refusal)
        except OSError as error:
            hint = getattr(error, "hint", "look at the disk and the limits of the host")
            request.fail(disk_room.refusal(error, "host", "%s: %s" % (request.op, error), hint))
        except Exception as error:
            traceback.print_exc()
            request.fail(Refusal("bug", "%s failed: %s: %s" % (request.op, type(error).__name__, error), "report this"))

    def _answer(self, request: Request) -> Message:
        if request.op == wire.CANCEL:
            number = request.read(CancelRequest).request
            with self._lock:
                other = self._requests.get(number)
            if other is not None:
                other.cancel()
            return DoneAnswer()
        operation = self._operations.by_name.get(request.op)
        if operation is None:
            raise Refusal("request", "this runner knows no operation %r" % request.op, "update dstack")
        return operation(request)
