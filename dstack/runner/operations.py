"""What a coordinator may ask of a runner, one method for each operation of docs/format.md section 2.

A method returns the answer's fields or raises Refusal; streams go out before it returns.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from itertools import islice
from typing import Any, Callable, Dict, Iterator

from dstack import wire
from dstack.runner.base import disk_room, safe_paths
from dstack.runner.base.channel import Request
from dstack.runner.base.refusal import Refusal
from dstack.runner.base.spool import Attempt, attempts, write_durably, write_json
from dstack.runner.coordinator_liveness import ended
from dstack.runner.executors.docker import present_images
from dstack.runner.facts import capacity, hello
from dstack.runner.job.forker import Forker
from dstack.runner.job.held import HeldAttempts
from dstack.runner.job.log_reader import LIFE_CHECK_S, await_end, follow
from dstack.runner.job.process import failed_report
from dstack.runner.job.stop import remove_outside, state, states, stop
from dstack.runner.queue import slots
from dstack.runner.queue.sightings import sighting
from dstack.runner.store import artifacts, blob_store, code, eviction, intake
from dstack.wire import CHUNK, ENDED, HELD, NO_ROOM, NOT_HELD, REFUSED, RUNNING, UNKNOWN, VANISHED

Operation = Callable[[Request], Dict[str, Any]]

_VANISHED = "its supervisor vanished: killed, or the host was restarted; how the job ended is not known"
_LAST_ACT = 10.0
_MOST = 2_000
NOT_WRITTEN = ("id", "op")
"""Fields of `prepare` that say nothing of the attempt."""


class Operations:
    """The operations of one runner, which works under the folder `root`. Methods run in threads of their own."""

    def __init__(self, root: str, forker: Forker) -> None:
        self._root = root
        self._holds = HeldAttempts(root, forker)
        self._receiving = threading.Lock()
        self._verified = blob_store.Verified()
        self.by_name: Dict[str, Operation] = {
            wire.HELLO: lambda request: hello(root),
            wire.CODE_BASIS: self._code_basis,
            wire.CODE_PUSH: self._code_push,
            wire.BLOBS_MISSING: lambda request: {"missing": blob_store.missing(root, request.texts("digests"))},
            wire.BLOBS_PUSH: self._blobs_push,
            wire.HOLD: lambda request: self._holds.hold(request, self._attempt(request)),
            wire.PREPARE: self._prepare,
            wire.GO: lambda request: self._holds.go(request, self._attempt(request)),
            wire.VERDICT: self._verdict,
            wire.STATUS: self._status,
            wire.WAIT: self._wait,
            wire.FOLLOW: self._follow,
            wire.STOP: lambda request: stop(request, self._attempt(request)),
            wire.MANIFEST: self._manifest,
            wire.PACK_READ: self._pack_read,
            wire.RELEASE: self._release,
            wire.SPOOL: self._spool,
            wire.QUEUE: self._queue,
            wire.IMAGES: lambda request: {"present": present_images(request.texts("images"))},
            wire.COORDINATORS_ENDED: lambda request: {"ended": ended(root, request.texts("ids"))},
            wire.DROP: lambda request: self._holds.drop(self._attempt(request)),
            wire.SIGHTING: lambda request: {
                "sighting": sighting(request.fields.get("nonce"), request.fields.get("account"))
            },
        }

    def _attempt(self, request: Request) -> Attempt:
        return Attempt(self._root, request.fields.get("nonce"))

    # -- code and blobs ---------------------------------------------------------------------------

    def _code_basis(self, request: Request) -> Dict[str, Any]:
        return dict(code.basis(self._root, request.text("project"), request.text("commit"), request.texts("known")))

    def _code_push(self, request: Request) -> Dict[str, Any]:
        project, commit, tree = request.text("project"), request.text("commit"), request.text("tree")
        with tempfile.NamedTemporaryFile(dir=self._root, prefix="bundle-") as bundle:
            for piece in request.incoming():
                bundle.write(piece)
            bundle.flush()
            with self._receiving:
                code.receive(self._root, project, commit, tree, bundle.name)
        return {}

    def _blobs_push(self, request: Request) -> Dict[str, Any]:
        intake.receive(self._root, request.fields.get("blobs"), request.incoming(), self._verified)
        return {}

    # -- an attempt -------------------------------------------------------------------------------

    def _prepare(self, request: Request) -> Dict[str, Any]:
        attempt = self._attempt(request)
        if not attempt.lives() or attempt.read_verdict() is not None:
            raise Refusal(NOT_HELD, "attempt %s is not held" % attempt.nonce, "send `hold` first")
        try:
            self._lay(request, attempt)
        except (Refusal, OSError) as error:
            refusal = _unprepared(error)
            hint = "; " + refusal.hint if refusal.hint else ""
            attempt.note("the job could not be prepared: %s%s" % (refusal.message, hint))
            raise refusal from None
        return {}

    def _lay(self, request: Request, attempt: Attempt) -> None:
        request.mapping("environment"), request.texts("arguments"), request.texts("artifacts")
        project = attempt.project(request.fields.get("prefix") or "")
        if os.path.lexists(attempt.work):
            safe_paths.remove_tree(attempt.work)
        tree = str(request.fields.get("tree") or "")
        code.lay(self._root, request.text("project"), request.text("commit"), tree, attempt.work)
        os.makedirs(project, exist_ok=True)
        blob_store.stage(self._root, project, list(request.fields.get("inputs") or []), self._verified)
        write_durably(attempt.script, request.text("script").encode("utf-8", "surrogateescape"))
        written = {name: value for name, value in request.fields.items() if name not in NOT_WRITTEN}
        write_json(attempt.attempt, written)

    def _verdict(self, request: Request) -> Dict[str, Any]:
        attempt = self._attempt(request)
        attempt.make()
        return {"verdict": attempt.read_verdict() or attempt.decide(REFUSED)}

    def _status(self, request: Request) -> Dict[str, Any]:
        attempt = self._attempt(request)
        now = state(attempt)
        return {"state": now, "log": attempt.log_size(), "exit": attempt.read_exit() if now == ENDED else None}

    def _wait(self, request: Request) -> Dict[str, Any]:
        attempt = self._attempt(request)
        await_end(attempt, request.pause)
        now = state(attempt)
        while now in (HELD, RUNNING) and not request.pause(LIFE_CHECK_S):
            now = state(attempt)  # only a container is left: nothing but a look tells
        if now == ENDED:
            return {"exit": attempt.read_exit()}
        if now == VANISHED:
            return {"exit": {**failed_report(_VANISHED), "vanished": True}}
        if now == UNKNOWN:
            return {"exit": failed_report("it never started on this host")}
        raise Refusal("cancelled", "the request was cancelled")

    def _follow(self, request: Request) -> Dict[str, Any]:
        attempt = self._attempt(request)
        for piece in follow(attempt, request.whole("offset"), request.pause):
            if not request.data(piece):
                break
        return {"exit": attempt.read_exit(), "length": attempt.log_size(), "state": state(attempt)}

    # -- what it leaves ---------------------------------------------------------------------------

    def _ended(self, request: Request) -> Attempt:
        attempt = self._attempt(request)
        if state(attempt) not in (ENDED, VANISHED):
            raise Refusal("manifest", "attempt %s has not ended" % attempt.nonce, "wait for its end")
        return attempt

    def _manifest(self, request: Request) -> Dict[str, Any]:
        attempt = self._ended(request)
        record, end = attempt.read_attempt() or {}, attempt.read_exit() or {}
        project = attempt.project(record.get("prefix") or "")
        found = artifacts.write_manifest(self._root, attempt.folder, project, record.get("artifacts") or [])
        for piece in _pieces(attempt.manifest):
            if not request.data(piece):
                break
        failed = end.get("code") != 0 or bool(end.get("stopped")) or bool(end.get("reason"))
        missing = list(found.get("missing") or [])
        return {**found, "partial": bool(found.get("partial")) or failed or bool(missing), "missing": missing}

    def _pack_read(self, request: Request) -> Dict[str, Any]:
        attempt = self._ended(request)
        record = attempt.read_attempt() or {}
        project = attempt.project(record.get("prefix") or "")
        for piece in artifacts.read_pack(self._root, attempt.folder, project, request.text("pack")):
            if not request.data(piece):
                break
        return {}

    def _release(self, request: Request) -> Dict[str, Any]:
        attempt = self._attempt(request)
        # A supervisor writes the exit report as its last act but one: it may still be about to end.
        # One that was refused hears of it from its coordinator's end, a moment later.
        deadline = time.monotonic() + _LAST_ACT if attempt.state() in (ENDED, UNKNOWN) else 0.0
        while attempt.lives() and time.monotonic() < deadline:
            request.pause(0.01)
        if attempt.lives():
            raise Refusal("busy", "attempt %s has not ended" % attempt.nonce, "stop it first")
        if attempt.exists():
            if attempt.read_exit() is None:
                remove_outside(attempt)
            self._keep_artifacts(attempt)
            safe_paths.remove_tree(attempt.folder)
            eviction.make_room(self._root)
        return {}

    def _keep_artifacts(self, attempt: Attempt) -> None:
        """What the job made goes into the store, so that the next job on this host needs no transfer."""
        if os.path.exists(attempt.manifest):
            record = attempt.read_attempt() or {}
            try:
                intake.adopt(self._root, attempt.folder, attempt.project(record.get("prefix") or ""))
            except (OSError, Refusal):
                pass  # a short cut that is missing costs a transfer and nothing else

    def _queue(self, request: Request) -> Dict[str, Any]:
        there = capacity(request.whole("slots"), request.whole_or("gpu_shares", 1))
        return slots.list_queue(self._root, there)

    def _spool(self, request: Request) -> Dict[str, Any]:
        found = list(islice(attempts(self._root), _MOST))
        return {"attempts": [_spooled(item, now) for item, now in zip(found, states(found))]}


def _unprepared(error: Exception) -> Refusal:
    """What `prepare` answers when `error` ended it: a full disk is told from all else, which is the job's own."""
    if isinstance(error, OSError):
        return disk_room.refusal(error, "prepare", str(error), "")
    kind = NO_ROOM if getattr(error, "kind", "") == NO_ROOM else "prepare"
    return Refusal(kind, str(error), getattr(error, "hint", ""))


def _spooled(attempt: Attempt, now: str) -> Dict[str, Any]:
    try:
        record = attempt.read_attempt() or {}
    except Refusal:
        record = {}
    return {"nonce": attempt.nonce, "state": now, "attempt": str(record.get("attempt") or "")}


def _pieces(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while True:
            data = file.read(CHUNK)
            if not data:
                return
            yield data
