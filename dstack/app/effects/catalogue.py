"""Every effect that steps may ask for, and the performers that can perform the effects.

`coordination/effect_driver.py` performs all effects on a real bucket and real hosts, the simulator of the tests on a
model with crashes, pauses and lost answers. A performer has one method for each effect, with the effect as the
argument. The small performers are parts of the whole: steps that need no host name a small performer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dstack.app.effects.answers import (
    CollectAnswer,
    Liveness,
    PrepareAnswer,
    Silence,
    SlotAnswer,
    StartAnswer,
    StopAnswer,
    Verdict,
    WatchAnswer,
)
from dstack.app.effects.steps import Effect, Steps
from dstack.core.format.keys import AttemptKeys
from dstack.core.format.records import Claim, Coordinator
from dstack.model import JobSpec, JobStatus, Nonce, WorkflowName
from dstack.ports import Put

# -- performers -----------------------------------------------------------------------------------


class ObjectReader(Protocol):
    """Reads single objects of a bucket."""

    def read(self, effect: Read, /) -> Awaitable[bytes | None]: ...


class BucketReader(ObjectReader, Protocol):
    """Reads all of a bucket and changes nothing."""

    def list_keys(self, effect: ListKeys, /) -> Awaitable[Sequence[str]]: ...
    def children(self, effect: Children, /) -> Awaitable[Sequence[str]]: ...
    def sizes(self, effect: Sizes, /) -> Awaitable[Mapping[str, int]]: ...
    def reaches(self, effect: Reaches, /) -> Awaitable[bool]: ...


class Pauser(Protocol):
    """Lets time pass."""

    def pause(self, effect: Pause, /) -> Awaitable[None]: ...


class ObjectCreator(ObjectReader, Pauser, Protocol):
    """Creates single objects, by the create rule."""

    def put_new(self, effect: PutNew, /) -> Awaitable[Put]: ...
    def bucket_trouble(self, effect: BucketTrouble, /) -> Awaitable[str]: ...


class LivenessJudge(Protocol):
    """Tells whether other coordinators live."""

    def alive(self, effect: Alive, /) -> Awaitable[Liveness]: ...


class BucketPerformer(BucketReader, ObjectCreator, LivenessJudge, Protocol):
    """Performs all that needs no host."""

    def new_nonce(self, effect: NewNonce, /) -> Awaitable[Nonce]: ...
    def delete(self, effect: Delete, /) -> Awaitable[None]: ...


class AttemptCollector(ObjectCreator, Protocol):
    """Brings the log and the artifacts of an ended attempt from the host into the bucket."""

    def collect(self, effect: Collect, /) -> Awaitable[CollectAnswer]: ...
    def release(self, effect: Release, /) -> Awaitable[None]: ...


class Performer(BucketPerformer, AttemptCollector, Protocol):
    """Performs every effect: a coordinator."""

    def show(self, effect: Show, /) -> Awaitable[None]: ...
    def hold_slot(self, effect: HoldSlot, /) -> Awaitable[SlotAnswer]: ...
    def drop(self, effect: Drop, /) -> Awaitable[None]: ...
    def prepare(self, effect: Prepare, /) -> Awaitable[PrepareAnswer]: ...
    def start_job(self, effect: StartJob, /) -> Awaitable[StartAnswer]: ...
    def ask_verdict(self, effect: AskVerdict, /) -> Awaitable[Verdict]: ...
    def how_silent(self, effect: HowSilent, /) -> Awaitable[Silence]: ...
    def watch_job(self, effect: WatchJob, /) -> Awaitable[WatchAnswer]: ...
    def stop_job(self, effect: StopJob, /) -> Awaitable[StopAnswer]: ...
    def linger(self, effect: Linger, /) -> Awaitable[None]: ...


# -- effects on the bucket ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PutNew(Effect[ObjectCreator, Put]):
    """One create-if-absent. Only `create_if_absent.py` asks for it."""

    key: str
    body: bytes

    def perform(self, performer: ObjectCreator, /) -> Awaitable[Put]:
        return performer.put_new(self)


@dataclass(frozen=True, slots=True)
class BucketTrouble(Effect[ObjectCreator, str]):
    """The reason why the bucket gave no answer that counts, as far as the bucket knows, for people; "" for no
    reason."""

    def perform(self, performer: ObjectCreator, /) -> Awaitable[str]:
        return performer.bucket_trouble(self)


@dataclass(frozen=True, slots=True)
class Read(Effect[ObjectReader, bytes | None]):
    """The bytes of an object; None when the object is absent."""

    key: str

    def perform(self, performer: ObjectReader, /) -> Awaitable[bytes | None]:
        return performer.read(self)


@dataclass(frozen=True, slots=True)
class ListKeys(Effect[BucketReader, Sequence[str]]):
    """All keys below a folder, ascending. A late list lacks new objects: ask for an object by key before deciding on
    its absence."""

    prefix: str

    def perform(self, performer: BucketReader, /) -> Awaitable[Sequence[str]]:
        return performer.list_keys(self)


@dataclass(frozen=True, slots=True)
class Sizes(Effect[BucketReader, Mapping[str, int]]):
    """The objects below a folder, each with its size in bytes. A late list lacks new objects."""

    prefix: str

    def perform(self, performer: BucketReader, /) -> Awaitable[Mapping[str, int]]:
        return performer.sizes(self)


@dataclass(frozen=True, slots=True)
class Reaches(Effect[BucketReader, bool]):
    """Whether the object is there and has at least `size` bytes, at least 1."""

    key: str
    size: int

    def perform(self, performer: BucketReader, /) -> Awaitable[bool]:
        return performer.reaches(self)


@dataclass(frozen=True, slots=True)
class Children(Effect[BucketReader, Sequence[str]]):
    """Names directly below a folder, ascending, folders with a trailing "/". A late list lacks new objects."""

    prefix: str

    def perform(self, performer: BucketReader, /) -> Awaitable[Sequence[str]]:
        return performer.children(self)


@dataclass(frozen=True, slots=True)
class Delete(Effect[BucketPerformer, None]):
    """Remove objects, in any order; absent objects are fine. Only `prune_steps.py` and repairs of `fsck` ask for it."""

    keys: tuple[str, ...]

    def perform(self, performer: BucketPerformer, /) -> Awaitable[None]:
        return performer.delete(self)


@dataclass(frozen=True, slots=True)
class Pause(Effect[Pauser, None]):
    """Let time pass."""

    seconds: float

    def perform(self, performer: Pauser, /) -> Awaitable[None]:
        return performer.pause(self)


@dataclass(frozen=True, slots=True)
class NewNonce(Effect[BucketPerformer, Nonce]):
    """A fresh nonce."""

    def perform(self, performer: BucketPerformer, /) -> Awaitable[Nonce]:
        return performer.new_nonce(self)


@dataclass(frozen=True, slots=True)
class Alive(Effect[LivenessJudge, Liveness]):
    """Whether a coordinator lives. `claim` is of an attempt that the coordinator looks after: the host may know for
    sure."""

    coordinator: Coordinator
    claim: Claim | None = None

    def perform(self, performer: LivenessJudge, /) -> Awaitable[Liveness]:
        return performer.alive(self)


# -- effects on hosts and on the screen -----------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Show(Effect[Performer, None]):
    """Show the state of a job to people. `attempt` says where the log is when the job is not this coordinator's own."""

    workflow: WorkflowName
    status: JobStatus
    host: str = ""
    note: str = ""
    attempt: AttemptKeys | None = None
    mine: bool = False

    def perform(self, performer: Performer, /) -> Awaitable[None]:
        return performer.show(self)


@dataclass(frozen=True, slots=True)
class HoldSlot(Effect[Performer, SlotAnswer]):
    """Wait for a slot on some host, at most `patience` seconds.

    Asking again with the same nonce goes on waiting in the same place of the queue.
    """

    nonce: Nonce
    spec: JobSpec
    patience: float

    def perform(self, performer: Performer, /) -> Awaitable[SlotAnswer]:
        return performer.hold_slot(self)


@dataclass(frozen=True, slots=True)
class Drop(Effect[Performer, None]):
    """End the waiting or held supervisor of this nonce, if there is any. The verdict is then refused."""

    nonce: Nonce

    def perform(self, performer: Performer, /) -> Awaitable[None]:
        return performer.drop(self)


@dataclass(frozen=True, slots=True)
class Prepare(Effect[Performer, PrepareAnswer]):
    """Bring code, inputs and work tree to the claim's host."""

    claim: Claim
    spec: JobSpec
    attempt: AttemptKeys

    def perform(self, performer: Performer, /) -> Awaitable[PrepareAnswer]:
        return performer.prepare(self)


@dataclass(frozen=True, slots=True)
class StartJob(Effect[Performer, StartAnswer]):
    """Let the held supervisor start the job."""

    claim: Claim
    spec: JobSpec

    def perform(self, performer: Performer, /) -> Awaitable[StartAnswer]:
        return performer.start_job(self)


@dataclass(frozen=True, slots=True)
class AskVerdict(Effect[Performer, Verdict]):
    """Whether the attempt of this claim has started; the asked host refuses an attempt that has not, for ever."""

    claim: Claim

    def perform(self, performer: Performer, /) -> Awaitable[Verdict]:
        return performer.ask_verdict(self)


@dataclass(frozen=True, slots=True)
class HowSilent(Effect[Performer, Silence]):
    """For how long a host has been silent, after an AskVerdict or a WatchJob without an answer; a host that answers
    under another account is not silent. `owner` is another coordinator that looks after the attempt, None for an
    attempt of this coordinator's own."""

    claim: Claim
    owner: Coordinator | None = None

    def perform(self, performer: Performer, /) -> Awaitable[Silence]:
        return performer.how_silent(self)


@dataclass(frozen=True, slots=True)
class WatchJob(Effect[Performer, WatchAnswer]):
    """Carry the log on and wait for the end of the job, at most `patience` seconds."""

    claim: Claim
    workflow: WorkflowName
    attempt: AttemptKeys
    patience: float

    def perform(self, performer: Performer, /) -> Awaitable[WatchAnswer]:
        return performer.watch_job(self)


@dataclass(frozen=True, slots=True)
class StopJob(Effect[Performer, StopAnswer]):
    """End the job's process tree."""

    claim: Claim
    abort: bool

    def perform(self, performer: Performer, /) -> Awaitable[StopAnswer]:
        return performer.stop_job(self)


@dataclass(frozen=True, slots=True)
class Collect(Effect[AttemptCollector, CollectAnswer]):
    """Bring the rest of the log into the bucket, then packs, then the manifest.

    With `keep` false (aborted, or nothing was started) only the log is brought.
    """

    claim: Claim
    workflow: WorkflowName
    attempt: AttemptKeys
    partial: bool
    keep: bool

    def perform(self, performer: AttemptCollector, /) -> Awaitable[CollectAnswer]:
        return performer.collect(self)


@dataclass(frozen=True, slots=True)
class Release(Effect[AttemptCollector, None]):
    """The host may forget the attempt; best effort."""

    claim: Claim

    def perform(self, performer: AttemptCollector, /) -> Awaitable[None]:
        return performer.release(self)


@dataclass(frozen=True, slots=True)
class Linger(Effect[Performer, None]):
    """Take `steps` beside all that follows, for an attempt that was called lost and may live; returns at once.

    The log of the attempt is shown no more. Steps still open when the run has ended get a moment, and are then given
    up.
    """

    claim: Claim
    steps: Steps[Performer, None]

    def perform(self, performer: Performer, /) -> Awaitable[None]:
        return performer.linger(self)
