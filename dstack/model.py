"""The nouns: frozen values that every layer above shares. No I/O, no behaviour beyond their own shape."""

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
    """An enum whose members are their text, also when formatted: the same on every Python that dstack ships to."""

    __str__ = str.__str__


class JobStatus(Word):
    """States of a job; `core/lifecycle.py` says which may follow which."""

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
    """What an attempt waits for in the queue of a host: a slot of its `slots`, and `resources`.

    Higher `priority` comes first, then who came first. `gpu_shares` jobs may have one GPU; `title` is for people.
    """

    slots: int
    resources: Resources = Resources()
    priority: int = 0
    gpu_shares: int = 1
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueEntry:
    """One attempt of anybody's that waits on a host or runs there. `gpus` is None while it waits, and `why` says why;
    `since` is seconds ago.

    `fault` says what is wrong with a malformed ticket, which is the file `file`; it takes a slot where it `counts`.
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
    """The queue of one host, the oldest first, and how many `more` tickets there are.

    `shared`: of all its accounts. `unfit` says why private places of the queue are not used.
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
    """One named value. `text` is what the user wrote (`0.00002` stays that); a boolean is `true` or `false`."""

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
    """One workflow as the user wrote it, checked, with nothing put in for variables yet.

    `include`, `depends_variables`: None means the default, everything. `env_from_caller` are the
    bare names of `env:`, whose values never leave memory.
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
    """Jobs that may have one GPU at a time; None means 1."""
    local: bool = False
    forward_credentials: bool = False
    """Whether the user's own credentials for the bucket go to this host, in memory, so that it works alone."""
    dir: str | None = None
    """The folder on the host under which everything of dstack lies; None means `~/.dstack`."""
    position: Position | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What a runner says of its host at `hello`. Sizes are bytes."""

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
    """Whether its queue is that of all its users; else of this account alone."""
    place: Line = ""
    """Random, made once for the folder of dstack: the same words may lead to another folder on another machine."""
    machine: Line = ""
    """The same at every boot of the machine, and for all its accounts; "" where that cannot be told."""


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
    """One workflow with its variables fixed: all of a job but the content of its inputs.

    `script` is complete and holds no value of a variable; `arguments` are the script's `"$@"`.
    `environment` holds every variable under all its names; `env` is the workflow's `env:` with values put in, and wins
    over it. `$run_name` and `$job_id` are added by the claiming run. `variables` are those that the fingerprint
    includes, by name, as written; `environment` and `arguments` are not in it. `code` is the digest of the included
    files, by `core.fingerprint.code_digest`.
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
    """The jobs of a run in an order in which every job comes after its inputs; the last is the asked-for one."""

    jobs: tuple[JobSpec, ...]
    overrides: Mapping[str, Long] = field(default_factory=dict)
    """Variables given on the command line, as written."""


class EntryKind(Word):
    FILE = "file"
    LINK = "link"
    FOLDER = "folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One path of a manifest. Paths are relative to the project folder, with "/"; `mode` are permission bits.

    A FILE has `size`, `sha256`, `pack` and `offset` of its bytes in that pack, or, when it is large, `piece` (bytes)
    and `pieces` (the sha256 of each) instead of a pack; a LINK has `target`; a FOLDER is recorded so that an empty one
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
    """What a job left behind. `partial` marks the artifacts of a failed or stopped job; never an input."""

    entries: tuple[Entry, ...]
    partial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Spooled:
    """An attempt in the spool of a host: its `state` as in docs/format.md §2, and `attempt`, its folder in the bucket,
    "" before it was prepared. Both are the host's word."""

    nonce: Nonce
    state: Line
    attempt: Line = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitReport:
    """How a job ended, as its supervisor wrote it. `code` is None when a signal ended it or nothing is known.

    `stopped` says that the end was asked for; `missing` are the named artifacts that do not exist. Times are
    the host's own clock, seconds since the epoch, for people only.
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
    """Nobody can know: supervisor and job are gone without a report, or the host was started anew."""

    @property
    def succeeded(self) -> bool:
        return self.code == 0 and not self.stopped and not self.missing and not self.reason
