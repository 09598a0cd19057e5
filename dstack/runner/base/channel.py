"""The runner's half of the wire: frames out under a lock, and an object for each request under way.

Memory is bounded whatever the peer does: writers wait while the coordinator does not read, and the reader waits while a
handler does not take its bytes.
"""

from __future__ import annotations

import fcntl
import os
import queue
import sys
import threading
from typing import Any, Callable, Dict, Iterator, List, Optional, Type, TypeVar, Union

from dstack.wire import CHUNK_BYTES, DATA, HEADER, REQUEST_ID, Refusal, pack_message
from dstack.wire.message_form import Message, MisfitError, RequestMessage

MAX_WAITING_PIECES = 16
"""Waiting pieces of bulk data (of at most a frame each) for a handler."""
# fcntl.F_SETPIPE_SZ, which Python names from 3.10 on.
_F_SETPIPE_SZ = 1031

R = TypeVar("R", bound=RequestMessage[Any])


class Writer:
    """Frames to the coordinator; whole frames, one after the other."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.lock = threading.Lock()
        if sys.platform.startswith("linux"):
            try:
                fcntl.fcntl(fd, _F_SETPIPE_SZ, 1 << 20)
            except OSError:
                pass  # a socket or a terminal, or more than this user may have: then as it is

    def write(self, *parts: Union[bytes, memoryview]) -> None:
        """Write the parts of one frame; call with `lock` held. A lost coordinator ends the runner."""
        # One system call for header and bytes, without a copy of the bytes.
        left = [memoryview(part) for part in parts]
        try:
            while left:
                done = os.writev(self._fd, left)
                while left and done >= len(left[0]):
                    done -= len(left.pop(0))
                if left:
                    left[0] = left[0][done:]
        except OSError:
            # Without a coordinator there is no use for this process, and supervisors outlive the runner.
            os._exit(0)


class Request:
    """A request under way: the message, the incoming bytes, and the only answer."""

    def __init__(self, message: Dict[str, Any], writer: Writer, finished: Callable[[int], None]) -> None:
        self.id: int = message["id"]
        self.op = str(message.get("op"))
        self._message = message
        self._writer = writer
        self._finished = finished
        self._answered = False
        self._incoming: queue.Queue[bytes] = queue.Queue(MAX_WAITING_PIECES)
        self._cancelled = threading.Event()
        self._on_cancel: List[Callable[[], None]] = []
        self._window = threading.Condition()
        window = message.get("window")
        self._left: Optional[int] = max(0, window) if type(window) is int else None

    def read(self, cls: Type[R]) -> R:
        """The fields of this request. Raises Refusal, with the name of a field that breaks the declaration of `cls`."""
        try:
            return cls.from_envelope(self._message)
        except MisfitError as misfit:
            message = "%s: %s" % (self.op, misfit) if misfit.kind == "request" else misfit.text
            raise Refusal(misfit.kind, message, misfit.hint) from None

    # -- bytes from the coordinator ---------------------------------------------------------------

    def take(self, data: bytes) -> None:
        """Hand a piece to the handler; waits while the handler is behind, drops the piece after the answer."""
        while not self._answered:
            try:
                # A handler may answer without the rest of the bytes: a put without an end would hold up all requests.
                self._incoming.put(data, timeout=0.1)
                return
            except queue.Full:
                continue

    def incoming(self) -> Iterator[bytes]:
        """The bytes behind the request, to their end. Raises Refusal for a cancelled request."""
        while True:
            try:
                # A time-out, because `cancel` puts nothing into the queue.
                data = self._incoming.get(timeout=0.2)
            except queue.Empty:
                if self._cancelled.is_set():
                    raise Refusal("cancelled", "the request was cancelled") from None
                continue
            if not data:
                return
            yield data

    # -- the answer -------------------------------------------------------------------------------

    def data(self, chunk: bytes) -> bool:
        """Send bytes of this request's stream, as far as the window allows; False when the bytes are not wanted any
        more."""
        rest = memoryview(chunk)
        while rest:
            length = self._allowance(min(len(rest), CHUNK_BYTES))
            piece, rest = rest[:length], rest[length:]
            with self._writer.lock:
                if self._answered:
                    return False
                header = HEADER.pack(DATA, REQUEST_ID.size + len(piece)) + REQUEST_ID.pack(self.id)
                self._writer.write(header, piece)
        return not self._answered

    def _allowance(self, wanted: int) -> int:
        """Wait until something may be sent, and take at most `wanted` bytes of it."""
        with self._window:
            while self._left == 0 and not self._answered:
                self._window.wait()
            if self._left is None or self._answered:
                return wanted
            taken = min(wanted, self._left)
            self._left -= taken
            return taken

    def credit(self, count: int) -> None:
        """Let the handler send so many bytes more."""
        with self._window:
            if self._left is not None:
                self._left += count
                self._window.notify_all()

    def ok(self, answer: Message) -> None:
        self._answer({"ok": answer.to_json()})

    def fail(self, refusal: Refusal) -> None:
        self._answer({"error": refusal.to_json()})

    def _answer(self, answer: Dict[str, Any]) -> None:
        frame = pack_message({"id": self.id, **answer})
        with self._writer.lock:
            if self._answered:
                return
            self._answered = True
            self._writer.write(frame)
        with self._window:
            # A stream that waits for credit ends with the answer.
            self._window.notify_all()
        self._finished(self.id)

    # -- cancelling -------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Answer "cancelled" now, and tell the handler."""
        self._cancelled.set()
        self.fail(Refusal("cancelled", "the request was cancelled"))
        for act in self._on_cancel:
            act()

    def on_cancel(self, act: Callable[[], None]) -> None:
        # Before the look: with a cancel in between `act` may run twice, and never not at all.
        self._on_cancel.append(act)
        if self._cancelled.is_set():
            act()

    def pause(self, seconds: float) -> bool:
        """Wait so long; True as soon as the request is cancelled."""
        return self._cancelled.wait(seconds)
