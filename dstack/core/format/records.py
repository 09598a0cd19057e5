"""The JSON documents of the bucket: versioned, at most 1 MiB, unknown fields ignored when read.

A record is written once; `nonce` makes the body of each writer different, so reading a key back tells the winner.
docs/format.md is normative.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dstack.bounds import ExitCode, Long, SignalNumber
from dstack.core.format.codec import build, plain
from dstack.errors import BucketError, DamagedObjectError, LaterVersionError
from dstack.model import JobStatus, RunId, RunName, RunPlan, RunStatus, Snapshot, WorkflowName

R = TypeVar("R")

RECORD_VERSION = 1
MAX_RECORD = 1 << 20


def encode(kind: str, fields: Mapping[str, Any]) -> bytes:
    """Canonical bytes of one record; raises BucketError above MAX_RECORD."""
    # Sorted and without spaces: two owners of one attempt write the same bytes, and `create` compares bytes.
    body = json.dumps({"v": RECORD_VERSION, "kind": kind, **fields}, separators=(",", ":"), sort_keys=True).encode()
    if len(body) > MAX_RECORD:
        raise BucketError(f"a record of kind {kind} would be {len(body)} bytes long; the limit is {MAX_RECORD}")
    return body


def decode(kind: str, key: str, body: bytes) -> dict[str, Any]:
    """The fields of a record; raises DamagedObjectError when `body` is no record of this kind, LaterVersionError when a
    later version wrote the record."""
    try:
        # The length is checked before anything is parsed: memory and time stay bounded.
        fields = json.loads(body) if len(body) <= MAX_RECORD else None
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict) or fields.get("kind") != kind:
        raise DamagedObjectError.of(key, f"is not a record of kind {kind}")
    # `True` would pass isinstance, and compare as version 1.
    if type(fields.get("v")) is not int:
        raise DamagedObjectError.of(key, "does not say which version of dstack wrote it")
    if fields["v"] > RECORD_VERSION:
        raise LaterVersionError(key)
    return fields


def kind_of(cls: type[Any]) -> str:
    """The `kind` of a record class: its name in lower case, `run` for RunRecord."""
    return cls.__name__.removesuffix("Record").lower()


def pack(record: object) -> bytes:
    """The bytes of one record (an instance of a dataclass of this module); raises BucketError above MAX_RECORD."""
    return encode(kind_of(type(record)), plain(record))


def unpack(cls: type[R], key: str, body: bytes) -> R:
    """The record in `body`, read from `key`; raises DamagedObjectError when `body` holds no `cls`, and
    LaterVersionError when a later version of dstack wrote the record."""
    fields = decode(kind_of(cls), key, body)
    try:
        return build(cls, fields, key)
    except BucketError as error:
        raise DamagedObjectError(key, str(error)) from None


def at_machine(user: str, machine: str) -> str:
    """A user with the machine in use, as `user@machine`, for people."""
    return f"{user}@{machine}" if machine else user


@dataclass(frozen=True, slots=True, kw_only=True)
class Coordinator:
    """The identity of a coordinator, and the data by which a peer on the same machine sees whether the coordinator is
    alive.

    `lock` is a file under `flock` by the process for all its life.
    """

    id: str
    user: str
    machine: str
    boot_id: str
    pid: int
    lock: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Attempt n is taken. The policy of the claiming run goes with the claim, for adopters to keep."""

    nonce: str
    run: RunId
    run_name: RunName
    host: str
    address: Mapping[str, Any]
    """The inventory entry of the host as seen by the claimant: adopters find the attempt there."""
    boot_id: str
    coordinator: Coordinator
    max_duration: int | None = None
    account: str = ""
    folder: str = ""
    """Account and folder on the host with the attempt in its spool: any other spool has never heard of the attempt."""
    place: str = ""
    """The random name of the folder itself: another machine may have a folder at the same path."""
    machine: str = ""
    """The name of the host's machine over all its boots: for accounts without access to the folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Adoption: this coordinator looks after the attempt now."""

    nonce: str
    coordinator: Coordinator


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The job of this attempt runs, since `at` (0.0: not known); for people, since a job may be silent.

    `at` is by the clock of the job's host, and no decision rests on `at`. The first owner to write the record is
    believed.
    """

    nonce: str
    at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """This run waits for the job; `ended` is the last attempt already ended when the run came."""

    nonce: str
    run: RunId
    workflow: WorkflowName
    ended: int
    left: bool = False
    """The run found a tomb here and went on to a later generation: the run neither waits here nor uses anything."""
    again: bool = False
    """The run has an outcome of the job with damaged artifacts, and waits here for the same artifacts anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """A generation above the first exists: the run behind the new generation, and the reason."""

    nonce: str
    run: RunId
    reason: Long
    shared: bool = False
    """Every run may work in the generation, as in the first; else only the run that opened the generation, until there
    is a result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """A use of the generation: by a run until the run is final; by a process, `reader`, while the process lives."""

    nonce: str
    reader: Coordinator | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A registered user of the generation, with a pin under `name`: a run's id, or a process's."""

    nonce: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tomb:
    """The generation takes no new users: a prune has begun, or the result is `damaged`."""

    nonce: str
    user: str
    reason: Long = ""
    damaged: bool = False
    """The result names other objects than there are: `reason` says the object and the damage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A request to end this run, or a workflow of the run. `abort`: the artifacts are not kept."""

    nonce: str
    user: str
    reason: Long = ""
    abort: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How an attempt ended. `status` is a value of `core.lifecycle.AttemptEnd`; other words come from damage or from a
    later version."""

    nonce: str
    status: str
    reason: Long = ""
    code: ExitCode | None = None
    signal: SignalNumber | None = None
    host: str = ""
    started: float = 0.0
    ended: float = 0.0
    log_lost: str = ""
    """In words the part of the log not written by the host; "" for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """No process of a lost attempt lives any more, as seen on its host."""

    nonce: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The commit: attempt `attempt` holds everything in `manifest` (a sha256 of its body)."""

    nonce: str
    attempt: int
    manifest: str
    digest: str
    """Digest of the artifacts' content: an ingredient of the fingerprint of jobs with these artifacts as input."""
    run: RunId
    name: RunName
    host: str = ""
    started: float = 0.0
    ended: float = 0.0
    log_lost: str = ""
    """As in the attempt's end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of a job in a run. `attempt` 0: none made or joined by this run."""

    nonce: str
    workflow: WorkflowName
    status: JobStatus
    reason: Long = ""
    fingerprint: str = ""
    generation: int = 0
    attempt: int = 0
    host: str = ""
    digest: str = ""
    reused_from: RunName | None = None
    started: float = 0.0
    ended: float = 0.0
    damaged: str = ""
    """The object of the bucket whose damage made the job fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A whole run as requested; never changed."""

    nonce: str
    id: RunId
    name: RunName
    user: str
    machine: str
    submitted: float
    workflow: WorkflowName
    plan: RunPlan
    snapshot: Snapshot
    rerun: tuple[WorkflowName, ...] = ()
    """Workflows for which a new generation is opened."""
    command: tuple[Long, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedHost:
    """A host of a shared inventory: its address and limits, never a way to log in."""

    name: str
    address: str | None = None
    user: str | None = None
    port: int | None = None
    labels: tuple[str, ...] = ()
    slots: int | None = None
    gpu_shares: int | None = None
    dir: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """The hosts of the last push; `pushed` is in seconds since the epoch, for people."""

    nonce: str
    user: str
    machine: str
    pushed: float
    hosts: tuple[SharedHost, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """Summary of a run whose jobs all have an outcome."""

    nonce: str
    run: RunName
    user: str
    submitted: float
    workflow: WorkflowName
    status: RunStatus
    ended: float
    machine: str = ""
    jobs: tuple[Outcome, ...] = field(default_factory=tuple)
