"""The requests about a host, its code, its blobs and its queue, and the answers.

A coordinator ships its own runner, so both are of the same version: a request has every field of the declaration, and
no other. docs/format.md section 2 has the meaning of each message.
"""

from __future__ import annotations

from typing import Any, Optional, Tuple

from dstack import wire
from dstack.wire.field_kinds import (
    LARGEST,
    MAX_LIST_ITEMS,
    choice,
    flag,
    items,
    line,
    nested,
    nonce,
    optional,
    text,
    texts,
    whole,
)
from dstack.wire.job_messages import JobDemand
from dstack.wire.message_form import DoneAnswer, Kind, Message, MisfitError, RequestMessage, field

LONGEST_LEASE_S = 86_400
"""Seconds of the longest lease."""


def blobs() -> Kind:
    """A list of sha256 and size."""

    def read(value: Any, _: bool) -> Tuple[Tuple[str, int], ...]:
        if not isinstance(value, list):
            raise MisfitError("not a list of blobs: %.80r" % (value,), kind="hash")
        for item in value:
            if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], str) or not _is_size(item[1]):
                raise MisfitError("not a sha256 and a size: %.80r" % (item,), kind="hash")
        return tuple([(digest, size) for digest, size in value])

    return Kind(read, lambda values: [list(pair) for pair in values])


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 1 << 53


class CodeBasisAnswer(Message):
    """Whether the host has the commit, and the known commits on which a bundle may build."""

    have: bool = field(flag())
    basis: Tuple[str, ...] = field(texts(), absent=())


class CodeBasisRequest(RequestMessage[CodeBasisAnswer], op=wire.CODE_BASIS, answer=CodeBasisAnswer):
    project: str = field(text())
    commit: str = field(text())
    known: Tuple[str, ...] = field(texts())


class CodePushRequest(RequestMessage[DoneAnswer], op=wire.CODE_PUSH, answer=DoneAnswer):
    """A git bundle follows."""

    project: str = field(text())
    commit: str = field(text())
    tree: str = field(text())


class BlobsMissingAnswer(Message):
    missing: Tuple[str, ...] = field(texts())


class BlobsMissingRequest(RequestMessage[BlobsMissingAnswer], op=wire.BLOBS_MISSING, answer=BlobsMissingAnswer):
    digests: Tuple[str, ...] = field(texts())


class BlobsPushRequest(RequestMessage[DoneAnswer], op=wire.BLOBS_PUSH, answer=DoneAnswer):
    """The bytes of all `blobs` (sha256 and size) follow, in this order."""

    blobs: Tuple[Tuple[str, int], ...] = field(blobs())


class OtherVersionError(Exception):
    """The runner speaks version `spoken` of the wire."""

    def __init__(self, spoken: int) -> None:
        super().__init__("version %d of the wire" % spoken)
        self.spoken = spoken


class GpuAnswer(Message):
    """One GPU. Memory is in bytes."""

    name: Optional[str] = field(optional(line()), absent=None)
    memory: Optional[int] = field(optional(whole()), absent=None)


class HelloAnswer(Message):
    """The facts of a host; see model.HostFacts. Sizes are in bytes."""

    wire: int = field(whole())
    boot_id: str = field(line(1, 200))
    machine: str = field(line(), absent="")
    hostname: str = field(line())
    user: str = field(line())
    uid: int = field(whole(0, 2**32 - 1))
    python: str = field(line())
    platform: str = field(line())
    cpus: int = field(whole(0, 1 << 20))
    memory: int = field(whole())
    disk_free: int = field(whole())
    dir: str = field(line())
    git: Optional[str] = field(optional(line()))
    gpus: Tuple[GpuAnswer, ...] = field(items(nested(GpuAnswer), MAX_LIST_ITEMS))
    docker: bool = field(flag())
    shared_slots: bool = field(flag(), absent=False)
    place: str = field(line(), absent="")


class HelloRequest(RequestMessage[HelloAnswer], op=wire.HELLO, answer=HelloAnswer):
    """`lease` is in seconds: the runner ends after as long without a message; None where the runner never does."""

    lease: Optional[int] = field(whole(1, LONGEST_LEASE_S), default=None)

    def answer_from(self, data: object) -> HelloAnswer:
        """Raises OtherVersionError, whatever else the answer holds, where the runner speaks another wire version."""
        spoken = data.get("wire") if isinstance(data, dict) else None
        if type(spoken) is int and spoken != wire.WIRE_VERSION:
            raise OtherVersionError(spoken)
        return super().answer_from(data)


class TicketAnswer(Message):
    """One attempt in the queue of a host; see model.QueueEntry."""

    title: str = field(line())
    user: str = field(line())
    priority: int = field(whole(-(10**6), 10**6))
    gpus: Optional[Tuple[int, ...]] = field(optional(items(whole(0, 1 << 20), MAX_LIST_ITEMS)), absent=None)
    since: int = field(whole())
    why: str = field(line(), absent="")
    demand: JobDemand = field(nested(JobDemand), absent=JobDemand())
    fault: Optional[str] = field(line(), default=None)
    file: Optional[str] = field(line(), default=None)
    counts: Optional[bool] = field(flag(), default=None)


class QueueAnswer(Message):
    """The queue of a host, the oldest ticket first; see model.HostQueue."""

    tickets: Tuple[TicketAnswer, ...] = field(items(nested(TicketAnswer), MAX_LIST_ITEMS))
    more: int = field(whole(), absent=0)
    shared: bool = field(flag())
    unfit: Tuple[str, ...] = field(items(line(), MAX_LIST_ITEMS), absent=())


class QueueRequest(RequestMessage[QueueAnswer], op=wire.QUEUE, answer=QueueAnswer):
    slots: int = field(whole())
    gpu_shares: int = field(whole(-LARGEST), default=1)


class ImagesAnswer(Message):
    present: Tuple[str, ...] = field(texts())


class ImagesRequest(RequestMessage[ImagesAnswer], op=wire.IMAGES, answer=ImagesAnswer):
    images: Tuple[str, ...] = field(texts())


class CoordinatorsEndedAnswer(Message):
    ended: Tuple[str, ...] = field(texts())


class CoordinatorsEndedRequest(
    RequestMessage[CoordinatorsEndedAnswer], op=wire.COORDINATORS_ENDED, answer=CoordinatorsEndedAnswer
):
    ids: Tuple[str, ...] = field(texts())


class SpooledAnswer(Message):
    """One attempt in the spool of a host; see model.Spooled."""

    nonce: str = field(nonce())
    state: str = field(choice(*wire.STATES))
    attempt: str = field(line(), absent="")


class SpoolAnswer(Message):
    attempts: Tuple[SpooledAnswer, ...] = field(items(nested(SpooledAnswer), MAX_LIST_ITEMS))


class SpoolRequest(RequestMessage[SpoolAnswer], op=wire.SPOOL, answer=SpoolAnswer):
    """Name the attempts in the spool."""


class CancelRequest(RequestMessage[DoneAnswer], op=wire.CANCEL, answer=DoneAnswer):
    """Give up the request with this number; no request has the number 0, so that 0 asks for a sign of life."""

    request: int = field(whole())
