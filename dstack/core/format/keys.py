"""The one spelling of every key in the bucket. docs/format.md is normative."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from dstack.model import Fingerprint, RunId, RunName, WorkflowName

FORMAT = "dstack.json"
ALL = "_all"
MAX_NAME = 90
_ATTEMPT = re.compile(r"(jobs/[0-9a-f]{64}/[0-9]{6}/)a/([0-9]{6})/")
_NUMBER = re.compile(r"[0-9]{6}", re.ASCII)
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def numbers(names: Iterable[str]) -> list[int]:
    """The numbers of generations or attempts among the last parts of listed keys, ascending; other names are left out:
    whoever may write to the bucket may have put anything there."""
    parts = (name.rstrip("/").rpartition("/")[2] for name in names)
    return sorted(int(part) for part in parts if _NUMBER.fullmatch(part))


def inverted(milliseconds: int) -> str:
    """13 digits that sort newest first. `milliseconds` since the epoch; a time that has no place is the nearest one."""
    return f"{10**13 - max(1, min(milliseconds, 10**13 - 1)):013d}"


def _spelled(name: str) -> str:
    """`name` as part of a key: other bytes than letters, digits, ".", "_" and "-" as "=" and two digits of hex.

    Different names are spelled differently, but for what is longer than any account or machine is called.
    """
    body = name.encode("utf-8", "replace")
    return "".join(chr(byte) if byte in _PLAIN else f"={byte:02x}" for byte in body)[:MAX_NAME]


def takes(key: str) -> bool:
    """Whether creating it makes an attempt a coordinator's own: a claim, or an adoption."""
    return "/claim/" in key or "/owner/" in key


@dataclass(frozen=True, slots=True)
class RunKeys:
    """Keys of one run. `root` is `projects/<p>/`."""

    root: str
    run: RunId

    @property
    def folder(self) -> str:
        return f"{self.root}runs/{self.run}/"

    @property
    def record(self) -> str:
        return f"{self.folder}run.json"

    @property
    def final(self) -> str:
        return f"{self.folder}final"

    def stop(self, workflow: WorkflowName | None) -> str:
        return f"{self.folder}stop/{workflow or ALL}"

    @property
    def jobs(self) -> str:
        return f"{self.folder}jobs/"

    def job(self, workflow: WorkflowName) -> str:
        return f"{self.jobs}{workflow}"

    @property
    def coordinators(self) -> str:
        return f"{self.folder}coordinators/"

    def coordinator(self, coordinator: str) -> str:
        """Who looks after the run, or did; for people."""
        return f"{self.coordinators}{coordinator}"


@dataclass(frozen=True, slots=True)
class AttemptKeys:
    """Keys that only the winner of claim `number` and its adopters write."""

    generation: str
    number: int

    def attempt(self, number: int) -> AttemptKeys:
        """Another attempt of the same generation."""
        return AttemptKeys(self.generation, number)

    @property
    def result(self) -> str:
        """The commit of the generation, whichever attempt gave it."""
        return f"{self.generation}result"

    @property
    def tomb(self) -> str:
        """The tomb of the attempt's generation."""
        return f"{self.generation}tomb"

    @property
    def wants(self) -> str:
        return f"{self.generation}wants/"

    def want(self, run: RunId) -> str:
        return f"{self.generation}wants/{run}"

    def user(self, index: int) -> str:
        return f"{self.generation}users/{index:06d}"

    @property
    def claim(self) -> str:
        return f"{self.generation}claim/{self.number:06d}"

    @property
    def folder(self) -> str:
        return f"{self.generation}a/{self.number:06d}/"

    @property
    def started(self) -> str:
        return f"{self.folder}started"

    def owner(self, index: int) -> str:
        return f"{self.folder}owner/{index:06d}"

    @property
    def owners(self) -> str:
        return f"{self.folder}owner/"

    @property
    def logs(self) -> str:
        return f"{self.folder}log/"

    def log(self, offset: int) -> str:
        return f"{self.folder}log/{offset:016x}"

    def pack(self, name: str) -> str:
        return f"{self.folder}data/{name}"

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
class JobKeys:
    """Keys of one generation of one job."""

    root: str
    fingerprint: Fingerprint
    generation: int

    @property
    def job(self) -> str:
        return f"{self.root}jobs/{self.fingerprint}/"

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
        return f"{self.folder}wants/{run}"

    @property
    def claims(self) -> str:
        return f"{self.folder}claim/"

    @property
    def result(self) -> str:
        return f"{self.folder}result"

    @property
    def tomb(self) -> str:
        """Where it stands, the generation takes no new users: it goes as soon as nobody uses it."""
        return f"{self.folder}tomb"

    @property
    def pins(self) -> str:
        return f"{self.folder}pins/"

    def pin(self, user: str) -> str:
        """`user` is the id of a run, or of a process that reads the artifacts for somebody."""
        return f"{self.folder}pins/{user}"

    @property
    def users(self) -> str:
        return f"{self.folder}users/"

    def user(self, index: int) -> str:
        """Entry `index` (from 1, no gaps) in the register of everybody who ever came to use the generation."""
        return f"{self.users}{index:06d}"

    def attempt(self, number: int) -> AttemptKeys:
        return AttemptKeys(self.folder, number)


@dataclass(frozen=True, slots=True)
class ProjectKeys:
    """Keys of one project."""

    root: str

    @staticmethod
    def of(project: str) -> ProjectKeys:
        return ProjectKeys(f"projects/{project}/")

    def name(self, name: RunName) -> str:
        return f"{self.names}{name}"

    @property
    def runs(self) -> str:
        return f"{self.root}runs/"

    @property
    def names(self) -> str:
        return f"{self.root}names/"

    @property
    def hosts(self) -> str:
        """The shared inventories, the latest first."""
        return f"{self.root}hosts/"

    def runs_of(self, user: str, machine: str) -> str:
        """The folder of one person's runs, in the order of `runs`: which are one's own is known without reading any."""
        return f"{self.root}people/{_spelled(user)}@{_spelled(machine)}/"

    def run(self, run: RunId) -> RunKeys:
        return RunKeys(self.root, run)

    def job(self, fingerprint: Fingerprint, generation: int) -> JobKeys:
        return JobKeys(self.root, fingerprint, generation)

    def attempt_in(self, folder: str) -> AttemptKeys | None:
        """The attempt whose folder this is; None when it is none, or one of another project."""
        found = _ATTEMPT.fullmatch(folder.removeprefix(self.root)) if folder.startswith(self.root) else None
        return AttemptKeys(f"{self.root}{found.group(1)}", int(found.group(2))) if found else None

    @property
    def coordinators(self) -> str:
        return f"{self.root}coordinators/"

    def heartbeat(self, coordinator: str) -> str:
        return f"{self.coordinators}{coordinator}/hb"

    def files(self, digest: str) -> str:
        """The list of files behind a code digest (data, not a record), for `why`."""
        return f"{self.root}code/{digest}/files"

    def diff(self, commit: str) -> str:
        return f"{self.root}code/{commit}/diff"
