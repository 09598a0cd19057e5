"""The one spelling of every key in the bucket. docs/format.md is normative."""

from __future__ import annotations

from dataclasses import dataclass

from dstack.model import Fingerprint, RunId, RunName, WorkflowName

FORMAT = "dstack.json"
ALL = "_all"


def inverted(milliseconds: int) -> str:
    """13 digits that sort newest first."""
    return f"{10**13 - milliseconds:013d}"


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

    def job(self, workflow: WorkflowName) -> str:
        return f"{self.folder}jobs/{workflow}"


@dataclass(frozen=True, slots=True)
class AttemptKeys:
    """Keys that only the winner of claim `number` and its adopters write."""

    generation: str
    number: int

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
        return f"{self.root}names/{name}"

    @property
    def runs(self) -> str:
        return f"{self.root}runs/"

    def run(self, run: RunId) -> RunKeys:
        return RunKeys(self.root, run)

    def job(self, fingerprint: Fingerprint, generation: int) -> JobKeys:
        return JobKeys(self.root, fingerprint, generation)

    def heartbeat(self, coordinator: str) -> str:
        return f"{self.root}coordinators/{coordinator}/hb"

    def files(self, digest: str) -> str:
        """The list of files behind a code digest (data, not a record), for `why`."""
        return f"{self.root}code/{digest}/files"

    def diff(self, commit: str) -> str:
        return f"{self.root}code/{commit}/diff"
