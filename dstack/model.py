"""The nouns: frozen values for every layer above. No I/O, no behaviour beyond their own shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, NewType

from dstack.bounds import Count, ExitCode, Few, Line, Long, Port, Priority, SignalNumber, Slots, Text, Whole

WorkflowName = NewType("WorkflowName", str)
RunId = NewType("RunId", str)
RunName = NewType("RunName", str)
Fingerprint = NewType("Fingerprint", str)
HostName = NewType("HostName", str)
Nonce = NewType("Nonce", str)


class Word(str, Enum):
    """An enum whose members are their text, also when formatted: the same on every Python on hosts."""

    __str__ = str.__str__


class JobStatus(Word):
    """States of a job; `core/lifecycle.py` has the permitted changes."""

    WAITING = "waiting"
    QUEUED = "queued"
    PLACED = "placed"
    PREPARING = "preparing"
    RUNNING = "running"
    UPLOADING = "uploading"
    SUCCEEDED = "succeeded"
    REUSED = "reused"
    FAILED = "failed"
    STOPPING = "stopping"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"
    LOST = "lost"


class RunStatus(Word):
    """States of a run, as `ps --json` prints them."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Position:
    """A place in a file of the user's; line and column count from 1."""

    file: str
    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    count: Count
    name: Line | None = None
    memory: int | None = None
    """Bytes of each GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What a job asks of a host; None and 0 ask for nothing. Sizes are bytes."""

    cpu: int | None = None
    memory: int | None = None
    gpu: Gpu | None = None
    shm_size: int | None = None
    interruptible: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """The demand of an attempt in the queue of a host: a slot of its `slots`, and `resources`.

    Higher `priority` comes first, then the earlier arrival. `gpu_shares` jobs may share a GPU; `title` is for people.
    """

    slots: int
    resources: Resources = Resources()
    priority: int = 0
    gpu_shares: int = 1
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueEntry:
    """An attempt of any account that waits or runs on a host. `gpus` is None while the attempt waits, and `why` is then
    the reason; `since` is seconds ago.

    `fault` says what is wrong with a malformed ticket in the file `file`; a malformed ticket takes a slot where
    `counts` is true.
    """

    title: Line
    user: Line
    priority: Priority
    since: int
    gpus: Few[Count] | None = None
    why: Line = ""
    resources: Resources = Resources()
    fault: Line = ""
    file: Line = ""
    counts: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class HostQueue:
    """The queue of a host, the oldest ticket first, and how many `more` tickets there are.

    `shared`: the queue is the queue of all accounts. `unfit` says why private places of the queue are not used.
    """

    entries: Few[QueueEntry]
    shared: bool
    more: int = 0
    unfit: Few[Line] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    attempts: int = 1
    on: tuple[str, ...] = ()


class VariableType(Word):
    INTEGER = "int"
    FLOAT = "float"
    BOOLEAN = "bool"
    STRING = "string"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A named value. `text` is the user's own spelling (`0.00002` stays so); a boolean is `true` or `false`."""

    name: str
    text: str
    type: VariableType
    position: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """An input of a workflow: another workflow of the run, or the results of a tagged or named run."""

    workflow: WorkflowName
    tag: str | None = None
    run: RunName | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """A workflow as the user wrote it, checked, before variables are put in.

    `include`, `depends_variables`: None means the default, everything. `env_from_caller` are the bare names of `env:`;
    the values of these names never leave memory.
    """

    name: WorkflowName
    commands: tuple[str, ...]
    position: Position
    help: str = ""
    image: str | None = None
    include: tuple[str, ...] | None = None
    depends_variables: tuple[str, ...] | None = None
    depends_on: tuple[Dependency, ...] = ()
    artifacts: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    env_from_caller: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    resources: Resources = Resources()
    retry: Retry = Retry()
    max_duration: int | None = None
    """Seconds."""
    ports: tuple[int, ...] = ()
    reuse: bool = True
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One entry of the inventory, as written; None means: not said. `local` is this machine without SSH."""

    name: HostName
    address: str | None = None
    user: str | None = None
    port: Port | None = None
    identity_file: str | None = None
    jump: str | None = None
    labels: tuple[str, ...] = ()
    slots: Slots | None = None
    gpu_shares: Slots | None = None
    """Jobs that may share a GPU at a time; None means 1."""
    local: bool = False
    forward_credentials: bool = False
    """Whether the user's own credentials for the bucket go to this host, in memory, so that the host works alone."""
    dir: str | None = None
    """The folder on the host under which everything of dstack lies; None means `~/.dstack`."""
    position: Position | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """The facts of a host, as its runner tells them at `hello`. Sizes are bytes."""

    boot_id: Annotated[str, Text(most=200, least=1, shown=True)]
    hostname: Line
    user: Line
    uid: Annotated[int, Whole(most=2**32 - 1)]
    python: Line
    platform: Line
    cpus: Count
    memory: int
    gpus: Few[Gpu]
    git: Line | None
    docker: bool
    disk_free: int
    dir: Line
    shared_slots: bool = False
    """Whether all users share the queue of the host; else the queue is this account's alone."""
    place: Line = ""
    """Random, made once for the folder of dstack: the same words may lead to another folder on another machine."""
    machine: Line = ""
    """The same at every boot of the machine, and for all accounts; "" on a machine that cannot tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The code of a run as one git commit.

    `commit` is parentless and deterministic: the same tree gives the same id. `prefix` is the project
    folder inside the repository, "" or ending in "/". `head`, `branch`, `remote` and `diff` are for people.
    """

    commit: str
    tree: str
    prefix: str
    head: str | None
    branch: str | None
    remote: str | None
    dirty: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeFile:
    """One file of a snapshot: path relative to the project folder, git mode (`100644`), blob id."""

    path: str
    mode: str
    blob: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """A workflow with its variables fixed: all of a job but the content of its inputs.

    `script` is complete and holds no value of a variable; `arguments` are the script's `"$@"`. `environment` holds
    every variable under all its names; `env` is the workflow's `env:` with values put in, and wins over `environment`.
    `$run_name` and `$job_id` are added by the claiming run. `variables` are the variables in the fingerprint, by name,
    as written; `environment` and `arguments` are not in the fingerprint. `code` is the digest of the included files, by
    `core.fingerprint.code_digest`.
    """

    workflow: WorkflowName
    script: Long
    arguments: tuple[Long, ...]
    environment: Mapping[str, Long]
    env: Mapping[str, Long]
    env_from_caller: tuple[str, ...]
    secrets: tuple[str, ...]
    image: str | None
    artifacts: tuple[str, ...]
    inputs: tuple[Dependency, ...]
    variables: Mapping[str, Long]
    code: str
    resources: Resources = Resources()
    retry: Retry = Retry()
    max_duration: int | None = None
    ports: tuple[int, ...] = ()
    reuse: bool = True
    priority: Priority = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """The jobs of a run, every job after its inputs; the last job is the goal of the run."""

    jobs: tuple[JobSpec, ...]
    overrides: Mapping[str, Long] = field(default_factory=dict)
    """Variables given on the command line, as written."""


class EntryKind(Word):
    FILE = "file"
    LINK = "link"
    FOLDER = "folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A path of a manifest. Paths are relative to the project folder, with "/"; `mode` are permission bits.

    A FILE has `size`, `sha256`, and `pack` and `offset` of the bytes in the pack. A large FILE has `piece` (bytes) and
    `pieces` (the sha256 of each) instead of a pack. A LINK has `target`. A FOLDER is recorded so that an empty folder
    exists again.
    """

    path: str
    kind: EntryKind
    mode: int
    size: int = 0
    sha256: str = ""
    target: str = ""
    pack: str = ""
    offset: int = 0
    piece: int = 0
    pieces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The artifacts of a job. `partial` marks the artifacts of a failed or stopped job; never an input."""

    entries: tuple[Entry, ...]
    partial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Spooled:
    """An attempt in the spool of a host: its `state` as in docs/format.md §2, and `attempt`, its folder in the bucket,
    "" before `prepare`. Both are the host's word."""

    nonce: Nonce
    state: Line
    attempt: Line = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitReport:
    """How a job ended, as the supervisor wrote. `code` is None after a signal, or where nothing is known.

    `stopped`: the end was asked for; `missing` are the named artifacts that do not exist. Times are the host's own
    clock, seconds since the epoch, for people only.
    """

    code: ExitCode | None
    signal: SignalNumber | None = None
    stopped: bool = False
    reason: Long = ""
    missing: tuple[str, ...] = ()
    started: float = 0.0
    ended: float = 0.0
    log_lost: str = ""
    """In words what of the log is missing for good; "" for nothing."""
    vanished: bool = False
    """The end of the job is unknown for ever: supervisor and job are gone without a report, or the host was started
    anew."""

    @property
    def succeeded(self) -> bool:
        return self.code == 0 and not self.stopped and not self.missing and not self.reason
