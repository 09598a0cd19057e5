"""The one spelling of every key in the bucket. docs/format.md is normative."""

from __future__ import annotations

from dataclasses import dataclass

from dstack.model import Fingerprint, RunId, RunName, WorkflowName

FORMAT_KEY = "dstack.json"
"""The record of the version of the bucket's format."""
PROJECTS = "projects/"
"""The folder of all projects."""
PROBES = "probe/"
"""The folder of all trials of the bucket."""
ALL_WORKFLOWS = "_all"
"""The name of the stop request that covers every workflow of a run."""
MAX_PERSON_PART = 90
"""Characters of the name of an account, and of a machine, in a key."""
MAX_INVENTORY = 10**6 - 1
"""The highest number of a shared inventory."""
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def _spelled(name: str) -> str:
    """`name` as part of a key: other bytes than letters, digits, ".", "_" and "-" as "=" and two digits of hex.

    Different names are spelled differently, but for what is longer than any account or machine is called.
    """
    # No account or machine has a half of a surrogate pair in its name; a hostile record may.
    body = name.encode("utf-8", "replace")
    return "".join(chr(byte) if byte in _PLAIN else f"={byte:02x}" for byte in body)[:MAX_PERSON_PART]


def probe_folder(nonce: str) -> str:
    """The folder for the scratch objects of one trial of a bucket."""
    return f"{PROBES}{nonce}/"


@dataclass(frozen=True, slots=True)
class RunKeys:
    """Keys of one run. `root` is `projects/<p>/`."""

    root: str
    run: RunId

    @property
    def folder(self) -> str:
        return f"{ProjectKeys(self.root).runs}{self.run}/"

    @property
    def record(self) -> str:
        return f"{self.folder}run.json"

    @property
    def final(self) -> str:
        return f"{self.folder}final"

    def stop(self, workflow: WorkflowName | None) -> str:
        return f"{self.folder}stop/{workflow or ALL_WORKFLOWS}"

    @property
    def jobs(self) -> str:
        return f"{self.folder}jobs/"

    def job(self, workflow: WorkflowName) -> str:
        return f"{self.jobs}{workflow}"

    @property
    def coordinators(self) -> str:
        return f"{self.folder}coordinators/"

    def coordinator(self, coordinator: str) -> str:
        """The presence record of a coordinator of the run; for people."""
        return f"{self.coordinators}{coordinator}"


@dataclass(frozen=True, slots=True)
class JobKeys:
    """Keys of a generation of a job."""

    root: str
    fingerprint: Fingerprint
    generation: int

    @property
    def job(self) -> str:
        return f"{ProjectKeys(self.root).jobs}{self.fingerprint}/"

    @property
    def folder(self) -> str:
        return f"{self.job}{self.generation:06d}/"

    @property
    def why(self) -> str:
        return f"{self.folder}why"

    @property
    def wants(self) -> str:
        return f"{self.folder}wants/"

    def want(self, run: RunId) -> str:
        return f"{self.wants}{run}"

    @property
    def claims(self) -> str:
        return f"{self.folder}claim/"

    @property
    def result(self) -> str:
        return f"{self.folder}result"

    @property
    def tomb(self) -> str:
        """A generation with a tomb takes no new users, and is removed as soon as no user is left."""
        return f"{self.folder}tomb"

    @property
    def pins(self) -> str:
        return f"{self.folder}pins/"

    def pin(self, user: str) -> str:
        """`user` is the id of a run, or of a process with an open read of the artifacts."""
        return f"{self.pins}{user}"

    @property
    def users(self) -> str:
        return f"{self.folder}users/"

    def user(self, index: int) -> str:
        """Entry `index` (from 1, no gaps) in the register of all users of the generation, past ones too."""
        return f"{self.users}{index:06d}"

    @property
    def attempts(self) -> str:
        return f"{self.folder}a/"

    def attempt(self, number: int) -> AttemptKeys:
        return AttemptKeys(self, number)


@dataclass(frozen=True, slots=True)
class AttemptKeys:
    """Keys written only by the winner of claim `number` and its adopters."""

    generation: JobKeys
    number: int

    def attempt(self, number: int) -> AttemptKeys:
        """Another attempt of the same generation."""
        return AttemptKeys(self.generation, number)

    @property
    def claim(self) -> str:
        return f"{self.generation.claims}{self.number:06d}"

    @property
    def folder(self) -> str:
        return f"{self.generation.attempts}{self.number:06d}/"

    @property
    def started(self) -> str:
        return f"{self.folder}started"

    def owner(self, index: int) -> str:
        return f"{self.owners}{index:06d}"

    @property
    def owners(self) -> str:
        return f"{self.folder}owner/"

    @property
    def logs(self) -> str:
        return f"{self.folder}log/"

    def log(self, offset: int) -> str:
        # Of one width, so that the last key in a list is the last piece.
        return f"{self.logs}{offset:016x}"

    @property
    def packs(self) -> str:
        return f"{self.folder}data/"

    def pack(self, name: str) -> str:
        return f"{self.packs}{name}"

    @property
    def manifest(self) -> str:
        return f"{self.folder}manifest"

    @property
    def end(self) -> str:
        return f"{self.folder}end"

    @property
    def gone(self) -> str:
        return f"{self.folder}gone"


@dataclass(frozen=True, slots=True)
class ProjectKeys:
    """Keys of one project."""

    root: str

    @staticmethod
    def of(project: str) -> ProjectKeys:
        return ProjectKeys(f"{PROJECTS}{project}/")

    def name(self, name: RunName) -> str:
        return f"{self.names}{name}"

    @property
    def runs(self) -> str:
        return f"{self.root}runs/"

    @property
    def names(self) -> str:
        return f"{self.root}names/"

    @property
    def jobs(self) -> str:
        return f"{self.root}jobs/"

    @property
    def people(self) -> str:
        return f"{self.root}people/"

    @property
    def code(self) -> str:
        return f"{self.root}code/"

    @property
    def tags(self) -> str:
        return f"{self.root}tags/"

    @property
    def hosts(self) -> str:
        """The shared inventories, the latest first."""
        return f"{self.root}hosts/"

    def inventory(self, number: int) -> str:
        """Shared inventory `number`, from 1; the key holds the rest to 10^6, so that a list begins with the latest."""
        return f"{self.hosts}{10**6 - number:06d}"

    def runs_of(self, user: str, machine: str) -> str:
        """The folder of a person's runs, in the order of `runs`: one list finds the person's own runs, without reading
        any."""
        return f"{self.people}{_spelled(user)}@{_spelled(machine)}/"

    def run_of(self, user: str, machine: str, run: RunId) -> str:
        """The entry of a run in the folder of the person."""
        return f"{self.runs_of(user, machine)}{run}"

    def run(self, run: RunId) -> RunKeys:
        return RunKeys(self.root, run)

    def job(self, fingerprint: Fingerprint, generation: int) -> JobKeys:
        return JobKeys(self.root, fingerprint, generation)

    @property
    def coordinators(self) -> str:
        return f"{self.root}coordinators/"

    def heartbeat(self, coordinator: str) -> str:
        return f"{self.coordinators}{coordinator}/hb"

    def files(self, digest: str) -> str:
        """The list of files behind a code digest (data, not a record), for `why`."""
        return f"{self.code}{digest}/files"

    def diff(self, commit: str) -> str:
        return f"{self.code}{commit}/diff"
