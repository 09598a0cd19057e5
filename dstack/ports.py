"""The seams: the requests of the use cases to the outside world, with the possible failures in words.

Types only. A contract suite for each port runs on every implementation and on the fakes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from dstack.model import CodeFile, Demand, Entry, ExitReport, HostFacts, HostQueue, Manifest, Nonce, Snapshot, Spooled

if TYPE_CHECKING:
    # Commands that only read the bucket pay for no message of the wire.
    from dstack.wire.job_messages import JobOrder


class Put(Enum):
    """The answer to a create-if-absent. Only CREATED says who wrote the present object."""

    CREATED = "created"
    EXISTS = "exists"
    UNKNOWN = "unknown"
    """The answer was lost: the object may exist, may come to exist later, or may not."""


class Exclusion(Enum):
    """The party that keeps several writers from creating an object of a bucket twice."""

    KERNEL = "kernel"
    """The kernel of one machine or file server, by link(2)."""
    STORE = "store"
    """A server or library, which may ignore the condition of a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One object of a list. `size` is in bytes; `modified`: seconds since the epoch by the store's clock, for people
    and for housekeeping alone."""

    key: str
    size: int
    modified: float


class Bucket(Protocol):
    """The shared storage. Blocking, and safe to call from several threads.

    Keys are relative, "/"-separated, each part of `[A-Za-z0-9._=+@-]`; no key is also the prefix of another key
    followed by "/". A created object is whole and durable before CREATED is returned; no reader ever sees a part of an
    object. A list has everything created before the list began. Any method raises BucketError when the store does not
    answer or refuses; `create` then says UNKNOWN where the object may exist all the same.
    """

    @property
    def trouble(self) -> str:
        """For messages: the storage and its words at the last UNKNOWN; "" where these are not known."""
        ...

    def create(self, key: str, body: bytes) -> Put:
        """Write `body` under `key` unless something is there. Of any number of writers at most one gets CREATED."""
        ...

    def create_from(self, key: str, chunks: Iterable[bytes]) -> Put:
        """The same for bulk data larger than memory, with a smaller promise above 32 MiB.

        Nothing is left behind when `chunks`, which must not use the bucket itself, raises; the error of `chunks` is
        then raised. An object above 32 MiB may go in parts, and some stores guard the last step with no condition: an
        object from before the call is left alone, but of several writers at the same time several may get CREATED, and
        the last object stands, whole. So `create_from` is only for keys under which every writer writes the same bytes.
        """
        ...

    def put(self, key: str, body: bytes) -> None:
        """Write or overwrite; only for keys with one owner (H) and caches (C)."""
        ...

    def get(self, key: str) -> bytes | None:
        """The whole object, None when absent; raises DamagedObjectError above 64 MiB."""
        ...

    def read(self, key: str, offset: int, length: int) -> Iterator[bytes]:
        """`length` bytes from `offset` in pieces; raises DamagedObjectError when the object is absent or shorter."""
        ...

    def list(self, prefix: str, *, limit: int | None = None) -> Sequence[str]:
        """All keys below the folder `prefix` ("a/b/"), in ascending order of bytes, at most `limit`."""
        ...

    def survey(self, prefix: str) -> Iterator[Listed]:
        """Everything below the folder `prefix`, in no order, a page at a time: memory does not grow with the folder.

        Objects created or deleted meanwhile may be in the survey or not.
        """
        ...

    def children(self, prefix: str, *, limit: int | None = None, after: str = "") -> Sequence[str]:
        """The names directly below the folder `prefix`, folders with a trailing "/", ascending, at most `limit`, all
        behind the name `after`. With a small `limit` an object store gets about one request for every thousand keys
        between the given names, however many keys come later."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; absent is fine."""
        ...


class Transport(Protocol):
    """A byte stream to a freshly started bootstrap on a host: stdin, stdout and stderr.

    `read` returns b"" at the end; every method raises HostUnreachableError when the connection is lost.
    """

    host: str

    async def read(self, limit: int) -> bytes: ...
    async def write(self, data: bytes) -> None:
        """Returns when the data may be forgotten by the caller and the peer is not more than a window behind."""
        ...

    async def close(self) -> None: ...
    def stderr_tail(self) -> str:
        """The last 4 KiB of what the far side wrote to stderr, for messages."""
        ...

    def exit_status(self) -> int | None: ...


OpenTransport = Callable[[], Awaitable[Transport]]
"""Connects, starts the bootstrap by a constant command, and gives its stream."""


class RunnerPort(Protocol):
    """A host as a coordinator uses the host: a runner behind a transport.

    Every method raises HostUnreachableError when the connection is lost (the outcome is then unknown), and HostError
    when the runner says no. A runner executes only commands handed over by `prepare` and `go`.
    """

    name: str

    async def facts(self) -> HostFacts: ...

    async def pulse(self, patience: float) -> None:
        """Return at the first sign of life of the runner; raises HostUnreachableError when `patience` seconds bring
        none: the runner is frozen, or waits for a disk that hangs."""
        ...

    async def push_code(self, project: str, snapshot: Snapshot, source: CodeSource) -> int:
        """Bring a snapshot to the host, sending only the missing part; returns the bytes sent."""
        ...

    async def hold(self, nonce: Nonce, demand: Demand, told: Callable[[str], None] = ...) -> None:
        """Wait in the host's queue for the whole demand; a supervisor then holds the demand and waits.

        `told` gets the reason while the queue itself cannot be used, and "" at the end of the trouble. Ended by `drop`
        or a lost connection; raises HostError when the host can never meet the demand.
        """
        ...

    async def queue(self, slots: int, gpu_shares: int) -> HostQueue:
        """The waiting and running attempts of the host, judged by these numbers of slots and shares.

        Raises HostError, with the holder's name, while another process holds the lock of the queue.
        """
        ...

    async def images(self, names: Sequence[str]) -> Sequence[str]:
        """The container images of `names` that are on the host; none where Docker gives no answer."""
        ...

    async def drop(self, nonce: Nonce) -> None:
        """End a held supervisor before `go`; the verdict is then REFUSED."""
        ...

    async def prepare(self, order: JobOrder) -> None:
        """Lay the work tree, inputs and script of the attempt; a failure is also written to its log."""
        ...

    async def go(self, nonce: Nonce, environment: Mapping[str, str]) -> float:
        """Let a held supervisor start the job -> the time of the start by the host's clock (seconds since the epoch,
        above 0); 0.0 for the verdict REFUSED. `environment` stays in memory."""
        ...

    async def verdict(self, nonce: Nonce) -> str:
        """STARTED or REFUSED, for ever: where nothing was written yet, REFUSED is written now."""
        ...

    async def sighting(self, nonce: Nonce, account: str) -> str:
        """Whether an attempt of any account of the host is seen to live: one of `wire.SIGHTINGS`; changes nothing."""
        ...

    def follow(self, nonce: Nonce, offset: int) -> AsyncIterator[bytes]:
        """The bytes of the log from `offset` on, as they come; ends when the job has ended and all was given."""
        ...

    async def wait(self, nonce: Nonce) -> ExitReport:
        """The exit report, as soon as there is one; code None and a reason when supervisor and job vanished."""
        ...

    async def stop(self, nonce: Nonce, *, abort: bool = False) -> ExitReport:
        """End the job's whole process tree: TERM, grace, KILL until quiet; raises UnkillableError, with the names of
        the processes, when the kernel does not end all."""
        ...

    async def manifest(self, nonce: Nonce) -> Manifest:
        """Hash the artifacts of an ended job; entries carry pack names and offsets already."""
        ...

    def read_pack(self, nonce: Nonce, pack: str) -> AsyncIterator[bytes]:
        """The bytes of one pack of the manifest."""
        ...

    async def missing_blobs(self, digests: Sequence[str]) -> Sequence[str]:
        """The sha256 of `digests` that the host store lacks; any number may be asked for."""
        ...

    async def push_blobs(self, blobs: Sequence[tuple[str, int]], chunks: AsyncIterator[bytes]) -> None:
        """Bring blobs (sha256, size in bytes) into the host store; `chunks` are the bytes, one blob after the other.

        At most 8,000 blobs. The host verifies each blob, and keeps the blobs before a damaged blob.
        """
        ...

    async def ended_coordinators(self, ids: Sequence[str]) -> Sequence[str]:
        """The coordinators of `ids` that ran on this host, under this account, and have ended for sure."""
        ...

    async def spool(self) -> Sequence[Spooled]:
        """The attempts that the host has not been told to forget, at most 2,000."""
        ...

    async def release(self, nonce: Nonce) -> None:
        """All of the attempt is in the bucket: the host may forget it."""
        ...

    async def close(self) -> None: ...


class TreeWriter(Protocol):
    """A folder of the user's for artifacts, which never leave the folder. Blocking; several threads may use the folder.

    Raises DstackError, with the path and the way out, for a path that is not written.
    """

    def holds(self, entry: Entry) -> bool:
        """Whether what the entry says stands there already, content included; a file then gets the entry's mode."""
        ...

    def write(self, entry: Entry, chunks: Iterable[bytes]) -> None:
        """Put a file (of these bytes), link or folder in place; no part is seen before all bytes were verified."""
        ...

    def folds_names(self) -> bool:
        """Whether names that differ only in case, or in the composition of a letter, are the same name there."""
        ...


class CodeSource(Protocol):
    """Where the bytes of snapshots come from: the laptop's own code store."""

    def bundle(self, snapshot: Snapshot, basis: Sequence[str]) -> Iterator[bytes]:
        """A git bundle of the snapshot for a receiver with the snapshot commits `basis`."""
        ...

    def known(self) -> Sequence[str]:
        """Snapshot commits of this project that may serve as a basis, newest first, at most 64."""
        ...

    def has(self, snapshot: Snapshot) -> bool:
        """Whether `bundle` can be made of the snapshot here, however old it is."""
        ...


class CodePort(Protocol):
    """The user's repository: read, never written."""

    def snapshot(self) -> Snapshot:
        """Pack the present code into the code store; raises SnapshotError with what to do."""
        ...

    def files(self, snapshot: Snapshot) -> Sequence[CodeFile]:
        """Every file of the snapshot below the project folder, in ascending order of path."""
        ...

    def diff(self, snapshot: Snapshot) -> bytes:
        """The snapshot against its head, for people; at most 1 MiB."""
        ...


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch, for people."""
        ...

    def boottime(self) -> float:
        """Seconds that never jump and go on through suspend; for durations."""
        ...


class Screen(Protocol):
    """The place where people, if any, watch a run. Never raises; never waits longer than the terminal does."""

    def job(
        self, workflow: str, status: str, host: str, note: str, took: float = 0.0, *, reused_from: str = ""
    ) -> None:
        """Show the present status of a job, and a note for people.

        `took`: seconds of the job so far, by the clock of its host; 0.0: not known. `reused_from`: the run whose
        result a reused job takes; "" for every other job.
        """
        ...

    def log(self, workflow: str, data: bytes) -> None:
        """Bytes of a job's log as they came, unfiltered, cut anywhere."""
        ...

    def progress(self, label: str, done: int, total: int) -> None:
        """Bytes moved of a push or pull; `done == total` ends it."""
        ...

    def message(self, text: str) -> None:
        """One line for people."""
        ...
