"""Held attempts of this runner: supervisors with a slot that wait for `go`, each behind a control socket."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any, Dict, Optional

from dstack.runner.base.channel import Request
from dstack.runner.base.spool import Attempt
from dstack.runner.job.forker import Forker
from dstack.runner.queue import tickets
from dstack.wire import NOT_HELD, REFUSED, STARTED, Refusal
from dstack.wire.job_messages import GoAnswer, GoRequest, HoldAnswer, HoldRequest


class HeldAttempts:
    """The control sockets of held supervisors. All close at the end of the runner, and the supervisors refuse."""

    def __init__(self, root: str, forker: Forker) -> None:
        self._root = root
        self._forker = forker
        self._lock = threading.Lock()
        self._controls: Dict[str, socket.socket] = {}

    def hold(self, request: Request, order: HoldRequest) -> HoldAnswer:
        """Fork a supervisor and wait until the host has a slot; `drop` and `cancel` end the wait.

        Meanwhile each line of the request's stream says why the queue itself is unusable; an empty line says that the
        queue is usable again.
        """
        order = order.replace(title=tickets.title_of(order.title))  # the forker reads an order in one piece
        with self._lock:
            if order.nonce in self._controls:
                raise Refusal("busy", "attempt %s is held already" % order.nonce)
            control = self._controls[order.nonce] = self._forker.fork(order)
        request.on_cancel(lambda: _hang_up(control))
        answer = _read_line(control)
        while answer is not None and "waits" in answer:
            request.data(str(answer["waits"]).encode("utf-8", "replace") + b"\n")
            answer = _read_line(control)
        if answer is None or "error" in answer:
            self._pop_control(order.nonce)
            control.close()
            error = (answer or {}).get("error") or {}
            message = error.get("message") or "the hold of attempt %s was given up" % order.nonce
            raise Refusal(error.get("kind") or "cancelled", message, error.get("hint") or "")
        return HoldAnswer(gpus=tuple(answer["held"]))

    def go(self, order: GoRequest, attempt: Attempt) -> GoAnswer:
        """Tell a held supervisor to start; the answer is the verdict, also of a supervisor that died meanwhile."""
        control = self._pop_control(attempt.nonce)
        if control is None:
            if attempt.read_verdict() is None:
                raise Refusal(
                    NOT_HELD, "attempt %s is not held by this connection" % attempt.nonce, "send `hold` first"
                )
            return _verdict(attempt, attempt.read_verdict() == STARTED)
        try:
            line = json.dumps({"environment": dict(order.environment)}).encode("utf-8", "surrogateescape")
            control.sendall(line + b"\n")
            answer = _read_line(control)
        except OSError:
            answer = None
        finally:
            control.close()
        if answer is not None and "error" in answer:
            raise Refusal(answer["error"]["kind"], answer["error"]["message"], answer["error"]["hint"])
        if answer is not None:
            return _verdict(attempt, bool(answer["started"]))
        return _verdict(attempt, attempt.decide(REFUSED) == STARTED)

    def drop(self, attempt: Attempt) -> None:
        """End a held supervisor; returns when the verdict is written and the slot is free."""
        with self._lock:
            control = self._controls.get(attempt.nonce)
        if control is not None:
            _hang_up(control)
            self._await_end(control)
            self._pop_control(attempt.nonce)
        attempt.make()
        if attempt.decide(REFUSED) == STARTED:
            raise Refusal("started", "attempt %s was started" % attempt.nonce, "stop it instead")

    @staticmethod
    def _await_end(control: socket.socket) -> None:
        """Read on until the supervisor is gone; after a shutdown for writing only, the end of the other direction says
        so."""
        try:
            while control.recv(4096):
                # A reset is the end of the supervisor as well.
                pass
        except OSError:
            pass

    def _pop_control(self, nonce: str) -> Optional[socket.socket]:
        with self._lock:
            return self._controls.pop(nonce, None)


def _verdict(attempt: Attempt, started: bool) -> GoAnswer:
    """The answer to `go`: the verdict, with the time of the verdict by this host's clock."""
    return GoAnswer(started=started, at=attempt.decided_at() if started else 0.0)


def _hang_up(control: socket.socket) -> None:
    try:
        control.shutdown(socket.SHUT_WR)
    except OSError:
        # The supervisor is gone already.
        pass


def _read_line(control: socket.socket) -> Optional[Dict[str, Any]]:
    """One line of JSON from a supervisor, and no byte of the next line; None when the supervisor is gone."""
    line = bytearray()
    while not line.endswith(b"\n"):
        try:
            data = control.recv(1)
        except OSError:
            return None
        if not data:
            return None
        line += data
    answer = json.loads(line.decode("utf-8"))
    return answer if isinstance(answer, dict) else None
