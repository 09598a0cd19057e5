"""The plan of `dstack prune` for a project, and its removals. Blocking.

Planning reads only and decides nothing for good: every removal asks again for users, by the steps of `prune_steps.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Set
from dataclasses import dataclass

from dstack.app.effects.catalogue import BucketPerformer
from dstack.app.effects.steps import Steps
from dstack.app.maintenance.blocking_driver import BlockingPerformer, parallel
from dstack.app.maintenance.bucket_survey import GenerationFacts, Survey
from dstack.app.protocol import prune_steps
from dstack.app.protocol.lease import SILENCE_S
from dstack.core.format.keys import JobKeys, ProjectKeys
from dstack.core.format.records import Claim, Outcome, Result, RunRecord, Want, unpack
from dstack.core.retention import PrunePolicy, StoredGeneration, choose
from dstack.errors import BucketError
from dstack.model import Fingerprint, RunId
from dstack.ports import Bucket, Listed

UNREFERENCED_GRACE_S = 24 * 3600.0
"""Seconds for which unreferenced code and heartbeats are left alone: a submission writes its code before its record,
and a machine may sleep."""
DOUBT_PAUSE_S = 5.0
LONGEST_DOUBT_S = SILENCE_S + 4 * DOUBT_PAUSE_S
"""Seconds until a reader with an unchanged heartbeat counts as gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationToPrune:
    """A generation to remove. `run` is the name of the run behind its attempt, "" when unknown."""

    keys: JobKeys
    workflow: str
    run: str
    bytes: int
    objects: int
    modified: float
    result: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunToPrune:
    """The records of a run to remove."""

    id: RunId
    name: str
    workflow: str
    bytes: int
    objects: int
    modified: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunePlan:
    """Everything to remove. `held` is the number of generations in use by unfinished runs."""

    generations: tuple[GenerationToPrune, ...]
    runs: tuple[RunToPrune, ...]
    code: tuple[str, ...]
    heartbeats: tuple[str, ...]
    bytes: int
    objects: int
    held: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneReport:
    """The removed objects. `used` generations stay: a new user came meanwhile."""

    generations: int
    runs: int
    objects: int
    used: int


class Pruner:
    """Plans and prunes one project."""

    def __init__(self, bucket: Bucket, keys: ProjectKeys, performer: BlockingPerformer, *, user: str) -> None:
        self._bucket = bucket
        self._keys = keys
        self._performer = performer
        self._user = user

    def refuse_tags(self) -> None:
        """Raise BucketError where a later version wrote tags: this version cannot tell which results they protect."""
        if self._bucket.children(self._keys.tags, limit=1):
            raise BucketError("the project has tags, which this version does not know", hint="upgrade this dstack")

    def plan(
        self, found: Survey, policy: PrunePolicy, *, now: float, tagged: frozenset[str] = frozenset()
    ) -> PrunePlan:
        """The plan by this policy, and the remains of earlier prunes and submissions. Reads only.

        `tagged` are the folders of the tagged generations: none of these goes.
        """
        used = {folder for folder, each in found.generations.items() if found.used(each)}
        used |= self._generations_in_use(found)
        chosen = self._choose(found, policy, now=now, used=used, tagged=tagged)
        planned = tuple(parallel(lambda item: self._to_prune(found.generations[item[0]], item[1]), chosen.items()))
        runs = self._runs(found, policy, now)
        code = self._code(found, {run.id for run in runs}, now)
        # A crashed coordinator leaves its heartbeat behind; a living one writes it every few seconds.
        beats = [each for each in found.heartbeats if now - each.modified > UNREFERENCED_GRACE_S]
        return PrunePlan(
            generations=tuple(sorted(planned, key=lambda each: (each.modified, each.keys.folder))),
            runs=runs,
            code=tuple(each.key for each in code),
            heartbeats=tuple(each.key for each in beats),
            bytes=sum(each.bytes for each in planned)
            + sum(each.bytes for each in runs)
            + sum(each.size for each in (*code, *beats)),
            objects=sum(each.objects for each in planned) + sum(each.objects for each in runs) + len(code) + len(beats),
            held=len(used & found.generations.keys()),
        )

    def prune(self, plan: PrunePlan, *, say: Callable[[str], None]) -> PruneReport:
        """Remove everything in the plan. May be broken off at any point; the next prune goes on. Raises BucketError.

        A generation with a doubtful reader is tried again for at most LONGEST_DOUBT_S seconds: by then the reader is
        known to live, and the generation stays, or counts as gone. `say` gets one line for the user about the wait.
        """
        ended: set[RunId] = set()
        open_ = list(plan.generations)
        removals: list[prune_steps.GenerationRemoval] = []
        until = time.monotonic() + LONGEST_DOUBT_S
        warned = False
        while open_:
            tried = list(parallel(lambda each: self._remove(each, ended), open_))
            doubtful = [
                each
                for each, removal in zip(open_, tried, strict=True)
                if removal.result is prune_steps.RemovalResult.DOUBT
            ]
            removals += [removal for removal in tried if removal.result is not prune_steps.RemovalResult.DOUBT]
            open_ = doubtful if time.monotonic() < until else []
            if open_ and not warned:
                warned = True
                waiting = f"waiting at most {LONGEST_DOUBT_S:.0f} s for a sign of life"
                say(f"somebody began to read {len(open_)} of these: {waiting}")
            if open_:
                time.sleep(DOUBT_PAUSE_S)
        forgotten = list(parallel(self._forget, plan.runs))
        # Code goes after the runs: a prune that is broken off leaves no run without its code.
        loose = [*plan.code, *plan.heartbeats]
        for _ in parallel(self._bucket.delete, loose):
            pass
        gone = sum(removal.result is prune_steps.RemovalResult.GONE for removal in removals)
        return PruneReport(
            generations=gone,
            runs=sum(count > 0 for count in forgotten),
            objects=sum(removal.deleted for removal in removals) + sum(forgotten) + len(loose),
            used=len(plan.generations) - gone,
        )

    def _remove(self, planned: GenerationToPrune, ended: set[RunId]) -> prune_steps.GenerationRemoval:
        def steps() -> Steps[BucketPerformer, prune_steps.GenerationRemoval]:
            tomb = yield from prune_steps.new_tomb(self._user, planned.reason)
            return (yield from prune_steps.remove_generation(self._keys, planned.keys, tomb, ended))

        return self._performer.take(steps())

    def _forget(self, run: RunToPrune) -> int:
        return self._performer.take(prune_steps.forget_run(self._keys, run.id))

    # -- planning ---------------------------------------------------------------------------------

    def _choose(
        self, found: Survey, policy: PrunePolicy, *, now: float, used: Set[str], tagged: Set[str]
    ) -> dict[str, str]:
        """Folders of the generations to remove, each with the reason."""
        labels = self._workflows(found) if policy.keep is not None else {}
        candidates = [
            StoredGeneration(
                key=folder,
                workflow=labels.get(folder, ""),
                bytes=each.bytes,
                modified=each.modified,
                made=each.made,
                used=folder in used,
                tagged=folder in tagged,
            )
            for folder, each in found.generations.items()
            # Behind a tomb there is nothing to choose: what is left there goes whatever the policy says.
            if not each.tomb
        ]
        chosen = {each.key: each.reason for each in choose(candidates, policy, total=found.bytes, now=now)}
        for folder, each in found.generations.items():
            if each.tomb and each.remains and folder not in used:
                chosen[folder] = "a prune began it"
        return chosen

    def _generations_in_use(self, found: Survey) -> set[str]:
        """The generations with results of unfinished runs: also of runs by versions without pins."""
        in_use = set()
        for run, facts in found.runs.items():
            if not facts.live:
                continue
            for key in self._bucket.list(self._keys.run(run).jobs):
                try:
                    # An outcome that went since the list is passed over like a damaged one.
                    outcome = unpack(Outcome, key, self._bucket.get(key) or b"")
                except BucketError:
                    continue
                if outcome.generation:
                    job = self._keys.job(Fingerprint(outcome.fingerprint), outcome.generation)
                    in_use.add(job.folder)
        return in_use

    def _workflows(self, found: Survey) -> dict[str, str]:
        """The workflow of each generation, by a past or present waiting run."""
        all_ = found.generations.values()
        return dict(parallel(lambda each: (each.keys.folder, workflow_of(self._bucket, each)), all_))

    def _to_prune(self, each: GenerationFacts, reason: str) -> GenerationToPrune:
        return GenerationToPrune(
            keys=each.keys,
            workflow=workflow_of(self._bucket, each),
            run=self._maker(each),
            bytes=each.bytes,
            objects=each.remains,
            modified=each.modified,
            result=each.made > 0,
            reason=reason,
        )

    def _maker(self, each: GenerationFacts) -> str:
        """The name of the run behind the attempt in the generation."""
        try:
            body = self._bucket.get(each.keys.result)
            if body is not None:
                return unpack(Result, each.keys.result, body).name
            # Without a result any claim names a run; attempts are numbered from 1.
            key = each.keys.attempt(1).claim
            body = self._bucket.get(key)
            return unpack(Claim, key, body).run_name if body is not None else ""
        except BucketError:
            return ""  # it goes all the same

    def _runs(self, found: Survey, policy: PrunePolicy, now: float) -> tuple[RunToPrune, ...]:
        """Ended runs past the age, and the remains of runs without a record."""
        old = []
        for run, facts in found.runs.items():
            age = now - facts.modified
            past = policy.older_than is not None and facts.final and age > policy.older_than
            if past or (not facts.recorded and age > UNREFERENCED_GRACE_S) or (facts.final and not facts.recorded):
                old.append(run)
        names = dict(parallel(lambda run: (run, self._record(run)), old))
        made = []
        for run in sorted(old, reverse=True):
            record, facts = names[run], found.runs[run]
            made.append(
                RunToPrune(
                    id=run,
                    name=record.name if record else "",
                    workflow=record.workflow if record else "",
                    bytes=facts.amount.bytes,
                    objects=facts.amount.objects + (record is not None),  # its name, too
                    modified=facts.modified,
                )
            )
        return tuple(made)

    def _record(self, run: RunId) -> RunRecord | None:
        key = self._keys.run(run).record
        body = self._bucket.get(key)
        try:
            return unpack(RunRecord, key, body) if body is not None else None
        except BucketError:
            return None

    def _code(self, found: Survey, going: set[RunId], now: float) -> list[Listed]:
        """Lists and diffs of code without a run to refer to them; none when a record cannot be read."""
        candidates = [each for each in found.code if now - each.modified > UNREFERENCED_GRACE_S]
        if not candidates:
            return []
        staying = [run for run, facts in found.runs.items() if facts.recorded and run not in going]
        referred: set[str] = set()
        for record in parallel(self._record, staying):
            if record is None:
                return []
            referred.add(self._keys.diff(record.snapshot.commit))
            referred.update(self._keys.files(spec.code) for spec in record.plan.jobs)
        return [each for each in candidates if each.key not in referred]


def workflow_of(bucket: Bucket, each: GenerationFacts) -> str:
    """The workflow of a generation, as named by a run that waited for the job; "" without such a run."""
    for run in sorted(each.runs):
        key = each.keys.want(run)
        body = bucket.get(key)
        if body is not None:
            try:
                return unpack(Want, key, body).workflow
            except BucketError:
                continue
    return ""
