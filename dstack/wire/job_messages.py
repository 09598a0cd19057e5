"""The requests about an attempt, from the wait for a slot to the release, and the answers.

A coordinator ships its own runner, so both are of the same version: a request has every field of the declaration, and
no other. `JobOrder`, `ExitRecord`, `StopWish` and `ManifestSummary` are also files of the spool, written and read by
other versions of dstack too. docs/format.md section 2 has the meaning of each message.
"""

from __future__ import annotations

from typing import Any, Mapping, Optional, Tuple

from dstack import wire
from dstack.wire.field_kinds import (
    LARGEST,
    LATEST,
    MAX_LIST_ITEMS,
    choice,
    flag,
    items,
    line,
    mapping,
    moment,
    nested,
    nonce,
    optional,
    real,
    text,
    texts,
    unread_list,
    whole,
)
from dstack.wire.message_form import DoneAnswer, Message, RequestMessage, field

JOB_STOP_GRACE_S = 10.0
"""Seconds between SIGTERM and SIGKILL where a stop does not say otherwise."""
LONGEST_GRACE_S = 1e9
"""Seconds between SIGTERM and SIGKILL at most."""


class JobOrder(RequestMessage[DoneAnswer], op=wire.PREPARE, answer=DoneAnswer):
    """Everything that a host needs to run a job, but the secrets: the request `prepare`, and `attempt.json` in the
    spool."""

    attempt: str = field(text(), absent="")
    """The folder of the attempt in the bucket."""
    project: str = field(text(), absent="")
    commit: str = field(text(), absent="")
    tree: str = field(text(), absent="")
    prefix: str = field(text(), absent="")
    """The project folder inside the repository, "" or ending in "/"."""
    script: str = field(text(), absent="")
    arguments: Tuple[str, ...] = field(texts(), absent=())
    environment: Mapping[str, str] = field(mapping(), absent={})
    image: Optional[str] = field(optional(text()), absent=None)
    """The container image to run in; None for a plain job."""
    artifacts: Tuple[str, ...] = field(texts(), absent=())
    inputs: Tuple[Any, ...] = field(unread_list(), absent=())
    """Entries of manifests (docs/format.md section 1), or of lists of entries in the store."""
    shm_size: Optional[int] = field(optional(whole()), absent=None)
    """Bytes."""
    max_duration: Optional[int] = field(optional(whole()), absent=None)
    """Seconds."""
    title: str = field(text(), absent="")
    nonce: str = field(nonce(), absent="")


class ExitRecord(Message):
    """How a job ended: `exit.json` in the spool, and `exit` in answers. Times are seconds since the epoch.

    `code` is None when a signal ended the job, or nothing is known.
    """

    code: Optional[int] = field(optional(whole(0, 255)))
    signal: Optional[int] = field(optional(whole(1, 128)), absent=None)
    stopped: bool = field(flag(), absent=False)
    reason: str = field(text(0, 1 << 20), absent="")
    missing: Tuple[str, ...] = field(texts(1 << 16, 1 << 16), absent=())
    """The named artifacts that do not exist."""
    log_lost: str = field(line(), absent="")
    """In words the part of the log that is missing for good; "" for nothing."""
    started: float = field(moment(), absent=0.0)
    ended: float = field(moment(), absent=0.0)
    vanished: Optional[bool] = field(optional(flag()), default=None)
    """True where supervisor and job are gone without a report; only in answers."""

    def succeeded(self) -> bool:
        """Whether the job did everything asked for; the same rule as `model.ExitReport.succeeded`."""
        return self.code == 0 and not (self.stopped or self.reason or self.missing)


class StopWish(Message):
    """The wish to stop a job: `stop.json` in the spool. `grace` is in seconds; `abort` leaves out SIGTERM."""

    grace: float = field(real(0, LONGEST_GRACE_S, "seconds"), absent=JOB_STOP_GRACE_S)
    abort: bool = field(flag(), absent=False)


class JobDemand(Message):
    """The demand of an attempt on its host. Memory is in bytes; 0 and "" ask for nothing."""

    cpu: int = field(whole(0, 1 << 20), default=0)
    memory: int = field(whole(0, 1 << 62), default=0)
    gpus: int = field(whole(0, 256), default=0)
    gpu_name: str = field(line(0, 200), default="")
    gpu_memory: int = field(whole(0, 1 << 62), default=0)


class HoldAnswer(Message):
    """The attempt is held. `gpus` are the numbers of its GPUs."""

    gpus: Tuple[int, ...] = field(items(whole(0, 1 << 20), MAX_LIST_ITEMS))


class HoldRequest(RequestMessage[HoldAnswer], op=wire.HOLD, answer=HoldAnswer, streams=True):
    """Wait in the host's queue for a slot of `slots` and for all of `demand`. Lines ahead of the answer say why the
    queue itself cannot be used."""

    nonce: str = field(nonce())
    slots: int = field(whole())
    gpu_shares: int = field(whole(-LARGEST), default=1)
    """Jobs that may share a GPU at a time."""
    priority: int = field(whole(-100, 100), default=0)
    title: str = field(text(), default="")
    demand: JobDemand = field(nested(JobDemand), default=JobDemand())


class DropRequest(RequestMessage[DoneAnswer], op=wire.DROP, answer=DoneAnswer):
    nonce: str = field(nonce())


class GoAnswer(Message):
    """`at` is when the job began, in seconds since the epoch by the host's clock; 0 where its verdict is REFUSED."""

    started: bool = field(flag())
    at: float = field(real(0, LATEST, "a time"), absent=0.0)


class GoRequest(RequestMessage[GoAnswer], op=wire.GO, answer=GoAnswer):
    """Start a held job. `environment` are the secrets of the job, and is never written."""

    nonce: str = field(nonce())
    environment: Mapping[str, str] = field(mapping())


class VerdictAnswer(Message):
    verdict: str = field(choice(wire.STARTED, wire.REFUSED))


class VerdictRequest(RequestMessage[VerdictAnswer], op=wire.VERDICT, answer=VerdictAnswer):
    nonce: str = field(nonce())


class SightingAnswer(Message):
    sighting: str = field(choice(*wire.SIGHTINGS))


class SightingRequest(RequestMessage[SightingAnswer], op=wire.SIGHTING, answer=SightingAnswer):
    """`nonce` and `account` are those of a claim: other accounts and later versions write claims too."""

    nonce: str = field(text())
    account: str = field(text())


class StatusAnswer(Message):
    """`log` is how many bytes the log has."""

    state: str = field(choice(*wire.STATES))
    log: int = field(whole())
    exit: Optional[ExitRecord] = field(optional(nested(ExitRecord)), absent=None)


class StatusRequest(RequestMessage[StatusAnswer], op=wire.STATUS, answer=StatusAnswer):
    nonce: str = field(nonce())


class WaitAnswer(Message):
    exit: ExitRecord = field(nested(ExitRecord))


class WaitRequest(RequestMessage[WaitAnswer], op=wire.WAIT, answer=WaitAnswer):
    nonce: str = field(nonce())


class FollowAnswer(Message):
    """The end of a log: the number of bytes, and the state of the attempt."""

    exit: Optional[ExitRecord] = field(optional(nested(ExitRecord)), absent=None)
    length: int = field(whole(), absent=0)
    state: str = field(choice(*wire.STATES), absent=wire.UNKNOWN)


class FollowRequest(RequestMessage[FollowAnswer], op=wire.FOLLOW, answer=FollowAnswer, streams=True):
    nonce: str = field(nonce())
    offset: int = field(whole())


class StopAnswer(Message):
    """`exit` is None for a job that never started."""

    exit: Optional[ExitRecord] = field(optional(nested(ExitRecord)), absent=None)


class StopRequest(RequestMessage[StopAnswer], op=wire.STOP, answer=StopAnswer):
    """See StopWish."""

    nonce: str = field(nonce())
    grace: float = field(real(0, LONGEST_GRACE_S, "seconds"))
    abort: bool = field(flag())


class ManifestSummary(Message):
    """The facts about a manifest beside the entries: `manifest.json` in the spool."""

    missing: Tuple[str, ...] = field(texts(), absent=())
    skipped: Tuple[str, ...] = field(texts(), absent=())
    entries: int = field(whole(), absent=0)
    bytes: int = field(whole(), absent=0)


class ManifestAnswer(ManifestSummary):
    """`partial`: the job of these artifacts did not succeed."""

    partial: bool = field(flag())


class ManifestRequest(RequestMessage[ManifestAnswer], op=wire.MANIFEST, answer=ManifestAnswer, streams=True):
    nonce: str = field(nonce())


class PackReadRequest(RequestMessage[DoneAnswer], op=wire.PACK_READ, answer=DoneAnswer, streams=True):
    nonce: str = field(nonce())
    pack: str = field(text())


class ReleaseRequest(RequestMessage[DoneAnswer], op=wire.RELEASE, answer=DoneAnswer):
    nonce: str = field(nonce())
