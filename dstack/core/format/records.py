"""The JSON documents of the bucket: versioned, at most 1 MiB, unknown fields ignored when read.

A record is written once; `nonce` makes one writer's body differ from every other's, so that reading a key back
says who won. docs/format.md is normative.
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
    body = json.dumps({"v": RECORD_VERSION, "kind": kind, **fields}, separators=(",", ":"), sort_keys=True).encode()
    if len(body) > MAX_RECORD:
        raise BucketError(f"a record of kind {kind} would be {len(body)} bytes long; the limit is {MAX_RECORD}")
    return body


def decode(kind: str, key: str, body: bytes) -> dict[str, Any]:
    """The fields of a record; raises DamagedObjectError when `body` is none of that kind, LaterVersionError when a
    later version wrote it."""
    try:
        fields = json.loads(body) if len(body) <= MAX_RECORD else None
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict) or fields.get("kind") != kind:
        raise DamagedObjectError.of(key, f"is not a record of kind {kind}")
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
    """The record that `body`, read from `key`, holds; raises DamagedObjectError when it holds no `cls`, whatever the
    bytes, and LaterVersionError when a later version of dstack wrote it."""
    fields = decode(kind_of(cls), key, body)
    try:
        return build(cls, fields, key)
    except BucketError as error:
        raise DamagedObjectError(key, str(error)) from None


def at_machine(user: str, machine: str) -> str:
    """A user and the machine that they work on, as `user@machine`, for people."""
    return f"{user}@{machine}" if machine else user


@dataclass(frozen=True, slots=True, kw_only=True)
class Coordinator:
    """Who drives: identity, and what a peer on the same machine needs to see whether it is alive.

    `lock` is a file that the process holds `flock` on for as long as it lives.
    """

    id: str
    user: str
    machine: str
    boot_id: str
    pid: int
    lock: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Attempt n is taken. The claiming run's policy goes with it, so that an adopter keeps it."""

    nonce: str
    run: RunId
    run_name: RunName
    host: str
    address: Mapping[str, Any]
    """The inventory entry of the host, as the claimant saw it: where an adopter finds the attempt."""
    boot_id: str
    coordinator: Coordinator
    max_duration: int | None = None
    account: str = ""
    folder: str = ""
    """Account and folder on the host in whose spool the attempt is: in any other one nobody ever heard of it."""
    place: str = ""
    """What that folder calls itself: another machine may have one of the same name."""
    machine: str = ""
    """What names the host's machine over its boots: for accounts that cannot look into that folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Adoption: this coordinator looks after the attempt now."""

    nonce: str
    coordinator: Coordinator


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The job of this attempt runs, since `at` (0.0: not known); for people, since a job may be silent.

    `at` is the clock of the job's host, and no decision rests on it. The first owner who writes it is believed.
    """

    nonce: str
    at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """This run waits for the job; `ended` is the last attempt that had already ended when it came."""

    nonce: str
    run: RunId
    workflow: WorkflowName
    ended: int
    left: bool = False
    """The run found a tomb here and went on to a later generation: it neither waits here nor uses anything."""
    again: bool = False
    """The run has an outcome of the job, whose artifacts turned out damaged, and waits here for the same ones anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """A generation above the first exists: which run opened it, and the reason."""

    nonce: str
    run: RunId
    reason: Long
    shared: bool = False
    """Every run may work in it, as in the first; else only the one that opened it, until there is a result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """Somebody uses what the generation holds. A run uses it until it is final; a process, `reader`, while it lives."""

    nonce: str
    reader: Coordinator | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody came to use what the generation holds, and pins it under `name`: a run's id, or that of a process."""

    nonce: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tomb:
    """The generation takes no new users: it is being pruned, or is `damaged`."""

    nonce: str
    user: str
    reason: Long = ""
    damaged: bool = False
    """What its result names is not what lies there: `reason` says which object and how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Somebody asked that this run, or one workflow of it, ends. `abort`: its artifacts are not kept."""

    nonce: str
    user: str
    reason: Long = ""
    abort: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How an attempt ended. `status` is succeeded, failed, stopped, lost, void (it never started) or superseded
    (it ran to its end, and another attempt's result was there first)."""

    nonce: str
    status: str
    reason: Long = ""
    code: ExitCode | None = None
    signal: SignalNumber | None = None
    host: str = ""
    started: float = 0.0
    ended: float = 0.0
    log_lost: str = ""
    """In words what of the log the host could not write; "" for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """Nothing lives any more of an attempt that was called lost, by whoever could see that on its host."""

    nonce: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The commit: attempt `attempt` holds everything that `manifest` (a sha256 of its body) names."""

    nonce: str
    attempt: int
    manifest: str
    digest: str
    """Digest of the artifacts' content: what goes into the fingerprint of jobs that take them as input."""
    run: RunId
    name: RunName
    host: str = ""
    started: float = 0.0
    ended: float = 0.0
    log_lost: str = ""
    """As in the attempt's end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one job in one run. `attempt` 0: none of this run's making or joining."""

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
    """A whole run as it was asked for; never changed."""

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
    """One host of an inventory that a team shares: where it is and what it may run, never how one logs in."""

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
    """The hosts that somebody pushed; `pushed` is in seconds since the epoch, for people."""

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
