"""A run held against docs/format.md: record, name, outcomes and summary, and the results named by its outcomes."""

from __future__ import annotations

from dstack.app.effects.catalogue import BucketPerformer, NewNonce
from dstack.app.effects.steps import Steps, ask
from dstack.app.maintenance.fsck.findings import SETTLING_S, Check, Finding, Records
from dstack.app.protocol import prune_steps, settlement
from dstack.app.protocol.create_if_absent import create
from dstack.app.protocol.jobs import Job
from dstack.app.queries.run_views import summary_of
from dstack.core.fingerprint import fingerprint, ingredients
from dstack.core.format.identifiers import is_run_id
from dstack.core.format.key_parser import KeyKind, numbers
from dstack.core.format.keys import JobKeys, RunKeys
from dstack.core.format.name_records import decode_name, encode_name
from dstack.core.format.records import Final, Outcome, Result, RunRecord, Want, pack, unpack
from dstack.core.lifecycle import ENDED_STATES, GOOD_STATES, overall_status
from dstack.errors import BucketError
from dstack.model import Fingerprint, JobSpec, RunId, WorkflowName


def check_run(check: Check, run: RunId) -> list[Finding]:
    """All faults of a run."""
    if not is_run_id(run):
        return [Finding(key=f"{check.keys.runs}{run}", meaning="it is not the id of a run")]
    return _Run(check, run).check()


class _Run(Records):
    """A run with its records decoded."""

    def __init__(self, check: Check, run: RunId) -> None:
        self.run = run
        self.keys: RunKeys = check.keys.run(run)
        super().__init__(check, check.bucket.survey(self.keys.folder))

    def check(self) -> list[Finding]:
        if not self.listed:
            return []
        if self.lacks(self.keys.record):
            self._headless()
            return self.findings
        record: RunRecord | None = self.of(KeyKind.RUN).get(self.keys.record)
        if record is None:
            return self.findings
        if record.id != self.run:
            self.wrong(self.keys.record, f"it is the record of another run, {record.id}")
            return self.findings
        self._check_name(record)
        outcomes = self._outcomes(record)
        for outcome in outcomes.values():
            self._check_outcome(outcome)
        final: Final | None = self.of(KeyKind.FINAL).get(self.keys.final)
        if final is not None:
            self._check_final(record, final, outcomes)
        elif self.lacks(self.keys.final):
            self._check_open(record, outcomes)
        return self.findings

    def _headless(self) -> None:
        def repair() -> Steps[BucketPerformer, None]:
            yield from prune_steps.forget_run(self._check.keys, self.run)

        self.wrong(
            self.keys.record,
            f"the run has no record, and {len(self.listed)} others: a prune was broken off",
            remedy="remove them",
            repair=repair,
        )

    def _check_name(self, record: RunRecord) -> None:
        key = self._check.keys.name(record.name)
        body = self._check.bucket.get(key)
        if body is not None:
            if decode_name(body) != self.run:
                self.wrong(key, f"it leads to another run than {self.run}, whose name it is")
            return

        def repair() -> Steps[BucketPerformer, None]:
            yield from create(key, encode_name(self.run))

        self.wrong(key, f"run {self.run} cannot be found by its name", remedy="write the name", repair=repair)

    # -- outcomes ---------------------------------------------------------------------------------

    def _outcomes(self, record: RunRecord) -> dict[WorkflowName, Outcome]:
        planned = {spec.workflow for spec in record.plan.jobs}
        found: dict[WorkflowName, Outcome] = {}
        for key, outcome in self.of(KeyKind.OUTCOME).items():
            if key != self.keys.job(outcome.workflow) or outcome.workflow not in planned:
                self.wrong(key, "it is the outcome of no job of this run")
            elif outcome.status not in ENDED_STATES:
                self.wrong(key, f"a job cannot end as {outcome.status}")
            else:
                found[outcome.workflow] = outcome
        return found

    def _check_outcome(self, outcome: Outcome) -> None:
        """The result named by the outcome of a job must be there, unless pruned since."""
        if outcome.status not in GOOD_STATES:
            return
        key = self.keys.job(outcome.workflow)
        keys = self._check.keys.job(Fingerprint(outcome.fingerprint), outcome.generation)
        try:
            result = self._result(keys)
        except BucketError:
            return  # told where the result stands
        if result is None:
            if self._check.bucket.get(keys.tomb) is None:
                self.wrong(key, f"the result that it names is gone, and was not pruned: {keys.result}")
        elif (result.attempt, result.digest) != (outcome.attempt, outcome.digest):
            self.wrong(key, f"the result that it names is another one: {keys.result}")

    def _result(self, keys: JobKeys) -> Result | None:
        body = self._check.bucket.get(keys.result)
        return unpack(Result, keys.result, body) if body is not None else None

    # -- the summary ------------------------------------------------------------------------------

    def _check_final(self, record: RunRecord, final: Final, outcomes: dict[WorkflowName, Outcome]) -> None:
        summed_up = {outcome.workflow: outcome for outcome in final.jobs}
        if set(summed_up) != {spec.workflow for spec in record.plan.jobs}:
            self.wrong(self.keys.final, "it sums up other jobs than the run has")
        if final.status is not overall_status([outcome.status for outcome in final.jobs]):
            self.wrong(self.keys.final, f"it says {final.status}, which does not follow from its jobs")
        for workflow, outcome in summed_up.items():
            key = self.keys.job(workflow)
            if self.lacks(key):
                self._missing_outcome(key, outcome)
            elif workflow in outcomes and outcomes[workflow] != outcome:
                self.wrong(self.keys.final, f"it says something else of {workflow} than {key}")

    def _missing_outcome(self, key: str, outcome: Outcome) -> None:
        def repair() -> Steps[BucketPerformer, None]:
            yield from create(key, pack(outcome))

        remedy = "write what the summary says of it"
        self.wrong(key, "the outcome of a job is missing, and the run has ended", remedy=remedy, repair=repair)

    def _check_open(self, record: RunRecord, outcomes: dict[WorkflowName, Outcome]) -> None:
        """A run without a summary: an old run may have ended all the same, a young run may have a coordinator about to
        write."""
        if any(not self._check.old(self.listed[self.keys.job(each)], SETTLING_S) for each in outcomes):
            return
        lacking = [spec for spec in record.plan.jobs if self.lacks(self.keys.job(spec.workflow))]
        if not lacking and len(outcomes) == len(record.plan.jobs):
            self._missing_final(record, outcomes)
        for spec in lacking:
            self._check_lacking(record, spec, outcomes)

    def _missing_final(self, record: RunRecord, outcomes: dict[WorkflowName, Outcome]) -> None:
        jobs = tuple(outcomes[spec.workflow] for spec in record.plan.jobs)

        def repair() -> Steps[BucketPerformer, None]:
            yield from create(self.keys.final, pack(summary_of(record, jobs, (yield from ask(NewNonce())))))

        meaning = "every job has an outcome, and the run has no summary: it counts as running"
        self.wrong(self.keys.final, meaning, remedy="write the summary", repair=repair)

    def _check_lacking(self, record: RunRecord, spec: JobSpec, outcomes: dict[WorkflowName, Outcome]) -> None:
        """A job without an outcome although there is a result for the waiting run."""
        inputs = [outcomes.get(dependency.workflow) for dependency in spec.inputs]
        if any(each is None or each.status not in GOOD_STATES for each in inputs):
            return
        digests = {str(each.workflow): each.digest for each in inputs if each is not None}
        print_ = fingerprint(ingredients(spec, digests))
        for number in numbers(self._check.bucket.children(self._check.keys.job(print_, 1).job)):
            self._offer(record, spec, self._check.keys.job(print_, number))

    def _offer(self, record: RunRecord, spec: JobSpec, keys: JobKeys) -> None:
        body = self._check.bucket.get(keys.want(self.run))
        try:
            if body is None or unpack(Want, keys.want(self.run), body).left:
                return
            result = self._result(keys)
        except BucketError:
            return
        listed = [each for each in self._check.bucket.survey(keys.folder) if each.key == keys.result]
        if result is None or not listed or not self._check.old(listed[0], SETTLING_S):
            return
        # The same steps as a coordinator takes, so the outcome is what the run would have recorded.
        key = self.keys.job(spec.workflow)
        job = Job(run=record, spec=spec, fingerprint=keys.fingerprint, project=self._check.keys)

        def repair() -> Steps[BucketPerformer, None]:
            outcome = yield from settlement.outcome_of(job, keys, result)
            yield from create(key, pack(outcome))

        self.wrong(
            key,
            "the result is there, and the run's outcome of it is missing",
            remedy="write the outcome",
            repair=repair,
        )
