"""The contents of a project by one walk over its keys: sizes and times of generations, runs and code. Reads no bodies.

Memory grows with the number of jobs and runs, not with the number of objects.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from dstack.core.format.identifiers import is_run_id
from dstack.core.format.key_parser import KeyKind, ParsedKey, parse_key, sort_of
from dstack.core.format.keys import JobKeys, ProjectKeys
from dstack.model import Fingerprint, RunId
from dstack.ports import Bucket, Listed


@dataclass(slots=True)
class Amount:
    """Objects and their bytes."""

    objects: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        self.objects += 1
        self.bytes += size


@dataclass(slots=True)
class GenerationFacts:
    """A generation of a job. `modified`: the time of the last write, a pin too, but not an entry in the register, where
    past readers stay; `made`: the time of its result, 0.0 without a result; `remains`: the objects beside the tomb."""

    keys: JobKeys
    sorts: dict[str, Amount] = field(default_factory=dict)
    modified: float = 0.0
    made: float = 0.0
    tomb: bool = False
    remains: int = 0
    runs: set[RunId] = field(default_factory=set)
    """Past and present runs with a want or a pin in the generation."""

    @property
    def bytes(self) -> int:
        return sum(amount.bytes for amount in self.sorts.values())

    @property
    def objects(self) -> int:
        return sum(amount.objects for amount in self.sorts.values())


@dataclass(slots=True)
class RunFacts:
    """The records of a run. `modified` is the time of the last record."""

    recorded: bool = False
    final: bool = False
    modified: float = 0.0
    amount: Amount = field(default_factory=Amount)

    @property
    def live(self) -> bool:
        """Whether a coordinator may still work for the run."""
        return self.recorded and not self.final


@dataclass(slots=True)
class Survey:
    """A whole project. `rest` counts keys never written by dstack of this version."""

    sorts: dict[str, Amount] = field(default_factory=dict)
    generations: dict[str, GenerationFacts] = field(default_factory=dict)
    runs: dict[RunId, RunFacts] = field(default_factory=dict)
    code: list[Listed] = field(default_factory=list)
    heartbeats: list[Listed] = field(default_factory=list)
    rest: Amount = field(default_factory=Amount)

    @property
    def bytes(self) -> int:
        return sum(amount.bytes for amount in self.sorts.values())

    def used(self, generation: GenerationFacts) -> bool:
        """Whether an unfinished run waits for the generation or uses its result."""
        return any(self.runs[run].live for run in generation.runs if run in self.runs)


def survey(bucket: Bucket, keys: ProjectKeys) -> Survey:
    """Walk over the whole project."""
    found = Survey()
    _gather(found, keys, bucket.survey(keys.root))
    return found


def _gather(found: Survey, keys: ProjectKeys, listed: Iterable[Listed]) -> None:
    for each in listed:
        parsed = parse_key(each.key.removeprefix(keys.root))
        found.sorts.setdefault(sort_of(parsed.kind), Amount()).add(each.size)
        if parsed.fingerprint:
            _of_job(found, keys, each, parsed)
        elif parsed.run:
            _of_run(found, each, parsed)
        elif parsed.kind in (KeyKind.DIFF, KeyKind.FILES):
            found.code.append(each)
        elif parsed.kind is KeyKind.HEARTBEAT:
            found.heartbeats.append(each)
        elif parsed.kind is KeyKind.UNKNOWN:
            found.rest.add(each.size)


def _of_job(found: Survey, keys: ProjectKeys, each: Listed, parsed: ParsedKey) -> None:
    job = keys.job(Fingerprint(parsed.fingerprint), parsed.generation)
    generation = found.generations.get(job.folder)
    if generation is None:
        generation = found.generations[job.folder] = GenerationFacts(keys=job)
    if parsed.kind is KeyKind.TOMB:
        generation.tomb = True
        return
    # The tomb itself stays for ever, and is no remainder.
    generation.remains += 1
    generation.sorts.setdefault(sort_of(parsed.kind), Amount()).add(each.size)
    if parsed.kind is not KeyKind.USER:
        generation.modified = max(generation.modified, each.modified)
    if parsed.kind is KeyKind.RESULT:
        generation.made = each.modified
    elif parsed.kind is KeyKind.WANT:
        generation.runs.add(RunId(parsed.run))
    elif parsed.kind is KeyKind.PIN and is_run_id(parsed.name):
        generation.runs.add(RunId(parsed.name))


def _of_run(found: Survey, each: Listed, parsed: ParsedKey) -> None:
    run = found.runs.setdefault(RunId(parsed.run), RunFacts())
    run.amount.add(each.size)
    run.modified = max(run.modified, each.modified)
    run.recorded = run.recorded or parsed.kind is KeyKind.RUN
    run.final = run.final or parsed.kind is KeyKind.FINAL
