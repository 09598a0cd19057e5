"""The operations of a runner, a method for each request of dstack/wire.

A method returns the answer or raises Refusal; streams go out before the method returns.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from itertools import islice
from typing import Any, Callable, Dict, Iterator, Optional, Tuple, Type, TypeVar, Union

from dstack.runner.base import disk_room, safe_paths
from dstack.runner.base.channel import Request
from dstack.runner.base.spool import Attempt, attempts, write_durably, write_json
from dstack.runner.coordinator_liveness import ended_coordinators
from dstack.runner.executors.docker import present_images
from dstack.runner.facts import describe_host, host_capacity
from dstack.runner.job.forker import Forker
from dstack.runner.job.held_attempts import HeldAttempts
from dstack.runner.job.log_reader import LIFE_CHECK_S, await_end, follow
from dstack.runner.job.process import failed_report
from dstack.runner.job.stop import remove_outside, state, states, stop
from dstack.runner.queue import slots
from dstack.runner.queue.sightings import sighting
from dstack.runner.store import artifacts, blob_store, code, eviction, intake
from dstack.wire import CHUNK_BYTES, ENDED, HELD, NO_ROOM, NOT_HELD, REFUSED, RUNNING, UNKNOWN, VANISHED, Refusal
from dstack.wire.host_messages import (
    BlobsMissingAnswer,
    BlobsMissingRequest,
    BlobsPushRequest,
    CodeBasisAnswer,
    CodeBasisRequest,
    CodePushRequest,
    CoordinatorsEndedAnswer,
    CoordinatorsEndedRequest,
    HelloRequest,
    ImagesAnswer,
    ImagesRequest,
    QueueAnswer,
    QueueRequest,
    SpoolAnswer,
    SpooledAnswer,
    SpoolRequest,
)
from dstack.wire.job_messages import (
    DropRequest,
    FollowAnswer,
    FollowRequest,
    GoRequest,
    HoldRequest,
    JobOrder,
    ManifestAnswer,
    ManifestRequest,
    PackReadRequest,
    ReleaseRequest,
    SightingAnswer,
    SightingRequest,
    StatusAnswer,
    StatusRequest,
    StopRequest,
    VerdictAnswer,
    VerdictRequest,
    WaitAnswer,
    WaitRequest,
)
from dstack.wire.message_form import DoneAnswer, Message, RequestMessage

R = TypeVar("R", bound=RequestMessage[Any])
Operation = Callable[[Request], Message]
AttemptRequest = Union[
    DropRequest,
    FollowRequest,
    GoRequest,
    JobOrder,
    ManifestRequest,
    PackReadRequest,
    ReleaseRequest,
    StatusRequest,
    StopRequest,
    VerdictRequest,
    WaitRequest,
]

_VANISHED = "its supervisor vanished: killed, or the host was restarted; how the job ended is not known"
_LAST_ACT = 10.0
_MOST = 2_000


class Operations:
    """The operations of a runner for the folder `root`. Methods run in threads of their own."""

    def __init__(self, root: str, forker: Forker) -> None:
        self._root = root
        self._holds = HeldAttempts(root, forker)
        self._receiving = threading.Lock()
        self._verified = blob_store.Verified()
        self.by_name: Dict[str, Operation] = dict(
            (
                _bound(HelloRequest, lambda request, order: describe_host(root)),
                _bound(CodeBasisRequest, self._code_basis),
                _bound(CodePushRequest, self._code_push),
                _bound(BlobsMissingRequest, self._blobs_missing),
                _bound(BlobsPushRequest, self._blobs_push),
                _bound(HoldRequest, self._holds.hold),
                _bound(JobOrder, self._prepare),
                _bound(GoRequest, lambda request, order: self._holds.go(order, self._attempt(order))),
                _bound(VerdictRequest, self._verdict),
                _bound(StatusRequest, self._status),
                _bound(WaitRequest, self._wait),
                _bound(FollowRequest, self._follow),
                _bound(StopRequest, lambda request, order: stop(request, order, self._attempt(order))),
                _bound(ManifestRequest, self._manifest),
                _bound(PackReadRequest, self._pack_read),
                _bound(ReleaseRequest, self._release),
                _bound(SpoolRequest, self._spool),
                _bound(QueueRequest, self._queue),
                _bound(ImagesRequest, lambda request, order: ImagesAnswer(present=tuple(present_images(order.images)))),
                _bound(CoordinatorsEndedRequest, self._coordinators_ended),
                _bound(DropRequest, self._drop),
                _bound(SightingRequest, self._sighting),
            )
        )

    def _attempt(self, order: AttemptRequest) -> Attempt:
        return Attempt(self._root, order.nonce)

    # -- code and blobs ---------------------------------------------------------------------------

    def _code_basis(self, request: Request, order: CodeBasisRequest) -> CodeBasisAnswer:
        return code.basis(self._root, order.project, order.commit, order.known)

    def _code_push(self, request: Request, order: CodePushRequest) -> DoneAnswer:
        with tempfile.NamedTemporaryFile(dir=self._root, prefix="bundle-") as bundle:
            for piece in request.incoming():
                bundle.write(piece)
            bundle.flush()
            with self._receiving:
                code.receive(self._root, order.project, order.commit, order.tree, bundle.name)
        return DoneAnswer()

    def _blobs_missing(self, request: Request, order: BlobsMissingRequest) -> BlobsMissingAnswer:
        return BlobsMissingAnswer(missing=tuple(blob_store.missing(self._root, order.digests)))

    def _blobs_push(self, request: Request, order: BlobsPushRequest) -> DoneAnswer:
        intake.receive(self._root, order.blobs, request.incoming(), self._verified)
        return DoneAnswer()

    # -- an attempt -------------------------------------------------------------------------------

    def _drop(self, request: Request, order: DropRequest) -> DoneAnswer:
        self._holds.drop(self._attempt(order))
        return DoneAnswer()

    def _prepare(self, request: Request, order: JobOrder) -> DoneAnswer:
        attempt = self._attempt(order)
        if not attempt.lives() or attempt.read_verdict() is not None:
            raise Refusal(NOT_HELD, "attempt %s is not held" % attempt.nonce, "send `hold` first")
        try:
            self._lay(order, attempt)
        except (Refusal, OSError) as error:
            refusal = _unprepared(error)
            hint = "; " + refusal.hint if refusal.hint else ""
            attempt.note("the job could not be prepared: %s%s" % (refusal.message, hint))
            raise refusal from None
        return DoneAnswer()

    def _lay(self, order: JobOrder, attempt: Attempt) -> None:
        project = attempt.project(order.prefix)
        if os.path.lexists(attempt.work):
            safe_paths.remove_tree(attempt.work)
        code.lay(self._root, order.project, order.commit, order.tree, attempt.work)
        os.makedirs(project, exist_ok=True)
        blob_store.stage(self._root, project, order.inputs, self._verified)
        write_durably(attempt.script, order.script.encode("utf-8", "surrogateescape"))
        # Last: a supervisor that finds an order finds everything to start the job with.
        write_json(attempt.attempt, order.to_json())

    def _verdict(self, request: Request, order: VerdictRequest) -> VerdictAnswer:
        attempt = self._attempt(order)
        # An attempt unknown here gets a folder: a late `hold` of the nonce must find the refusal.
        attempt.make()
        return VerdictAnswer(verdict=attempt.read_verdict() or attempt.decide(REFUSED))

    def _sighting(self, request: Request, order: SightingRequest) -> SightingAnswer:
        return SightingAnswer(sighting=sighting(order.nonce, order.account))

    def _status(self, request: Request, order: StatusRequest) -> StatusAnswer:
        attempt = self._attempt(order)
        now = state(attempt)
        return StatusAnswer(state=now, log=attempt.log_size(), exit=attempt.read_exit() if now == ENDED else None)

    def _wait(self, request: Request, order: WaitRequest) -> WaitAnswer:
        attempt = self._attempt(order)
        await_end(attempt, request.pause)
        now = state(attempt)
        while now in (HELD, RUNNING) and not request.pause(LIFE_CHECK_S):
            now = state(attempt)  # only a job outside of the process tree is left: nothing but a look tells
        report = attempt.read_exit() if now == ENDED else None
        if report is not None:
            return WaitAnswer(exit=report)
        if now == VANISHED:
            return WaitAnswer(exit=failed_report(_VANISHED).replace(vanished=True))
        if now == UNKNOWN:
            return WaitAnswer(exit=failed_report("it never started on this host"))
        raise Refusal("cancelled", "the request was cancelled")

    def _follow(self, request: Request, order: FollowRequest) -> FollowAnswer:
        attempt = self._attempt(order)
        for piece in follow(attempt, order.offset, request.pause):
            if not request.data(piece):
                break
        return FollowAnswer(exit=attempt.read_exit(), length=attempt.log_size(), state=state(attempt))

    # -- what it leaves ---------------------------------------------------------------------------

    def _ended(self, order: AttemptRequest) -> Attempt:
        attempt = self._attempt(order)
        if state(attempt) not in (ENDED, VANISHED):
            raise Refusal("manifest", "attempt %s has not ended" % attempt.nonce, "wait for its end")
        return attempt

    def _manifest(self, request: Request, order: ManifestRequest) -> ManifestAnswer:
        attempt = self._ended(order)
        job = attempt.read_order()
        paths = () if job is None else job.artifacts
        answer = artifacts.write_manifest(self._root, attempt.folder, _project(attempt, job), paths)
        for piece in _pieces(attempt.manifest):
            if not request.data(piece):
                break
        return answer

    def _pack_read(self, request: Request, order: PackReadRequest) -> DoneAnswer:
        attempt = self._ended(order)
        project = _project(attempt, attempt.read_order())
        for piece in artifacts.read_pack(self._root, attempt.folder, project, order.pack):
            if not request.data(piece):
                break
        return DoneAnswer()

    def _release(self, request: Request, order: ReleaseRequest) -> DoneAnswer:
        attempt = self._attempt(order)
        # A supervisor writes the exit report as its last act but one: it may still be about to end.
        # One that was refused hears of it from its coordinator's end, a moment later.
        deadline = time.monotonic() + _LAST_ACT if attempt.state() in (ENDED, UNKNOWN) else 0.0
        while attempt.lives() and time.monotonic() < deadline:
            request.pause(0.01)
        if attempt.lives():
            raise Refusal("busy", "attempt %s has not ended" % attempt.nonce, "stop it first")
        if attempt.exists():
            # Without a report the supervisor was killed, and may have left an ended container behind.
            if attempt.read_exit() is None:
                remove_outside(attempt)
            self._keep_artifacts(attempt)
            safe_paths.remove_tree(attempt.folder)
            eviction.make_room(self._root)
        return DoneAnswer()

    def _keep_artifacts(self, attempt: Attempt) -> None:
        """Bring the artifacts of the job into the store, so that the next job on this host needs no transfer."""
        if os.path.exists(attempt.manifest):
            try:
                intake.adopt(self._root, attempt.folder, _project(attempt, attempt.read_order()))
            except (OSError, Refusal):
                pass  # a short cut that is missing costs a transfer and nothing else

    # -- the host ---------------------------------------------------------------------------------

    def _queue(self, request: Request, order: QueueRequest) -> QueueAnswer:
        return slots.list_queue(self._root, host_capacity(order.slots, order.gpu_shares))

    def _spool(self, request: Request, order: SpoolRequest) -> SpoolAnswer:
        found = list(islice(attempts(self._root), _MOST))
        return SpoolAnswer(attempts=tuple([_spooled(item, now) for item, now in zip(found, states(found))]))

    def _coordinators_ended(self, request: Request, order: CoordinatorsEndedRequest) -> CoordinatorsEndedAnswer:
        return CoordinatorsEndedAnswer(ended=tuple(ended_coordinators(self._root, order.ids)))


def _bound(cls: Type[R], act: Callable[[Request, R], Message]) -> Tuple[str, Operation]:
    """The name of an operation, with a function that reads the request, does the operation, and gives the answer."""
    return cls.op, lambda request: act(request, request.read(cls))


def _project(attempt: Attempt, order: Optional[JobOrder]) -> str:
    """The folder that the job ran in."""
    return attempt.project("" if order is None else order.prefix)


def _unprepared(error: Exception) -> Refusal:
    """The refusal of `prepare` after `error`: a full disk differs from every other error, for all others are the job's
    own."""
    if isinstance(error, OSError):
        return disk_room.refusal(error, "prepare", str(error), "")
    kind = NO_ROOM if getattr(error, "kind", "") == NO_ROOM else "prepare"
    return Refusal(kind, str(error), getattr(error, "hint", ""))


def _spooled(attempt: Attempt, now: str) -> SpooledAnswer:
    try:
        order = attempt.read_order()
    except Refusal:
        order = None
    return SpooledAnswer(nonce=attempt.nonce, state=now, attempt="" if order is None else order.attempt)


def _pieces(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while True:
            data = file.read(CHUNK_BYTES)
            if not data:
                return
            yield data
