"""A run: recorded, coordinated job by job to the end, summed up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dstack.app.coordination.artifact_replacements import Replacements
from dstack.app.coordination.context import CoordinationContext
from dstack.app.coordination.effect_driver import Driver
from dstack.app.coordination.host_cleanup import clean_up_host
from dstack.app.effects.steps import take
from dstack.app.protocol import settlement
from dstack.app.protocol.create_if_absent import create_now, create_or_read
from dstack.app.protocol.jobs import Job
from dstack.app.protocol.settlement import JobDamage
from dstack.app.queries.run_views import summary_of, waits_text
from dstack.core.fingerprint import fingerprint, ingredients
from dstack.core.format.keys import ProjectKeys
from dstack.core.format.name_records import encode_name
from dstack.core.format.records import Coordinator, Final, Outcome, RunRecord, pack, unpack
from dstack.core.lifecycle import GOOD_STATES
from dstack.core.reuse import fresh_reason
from dstack.core.time_spans import seconds_between
from dstack.errors import (
    BucketError,
    DamagedInputError,
    DamagedObjectError,
    DstackError,
    LaterVersionError,
)
from dstack.model import Fingerprint, JobSpec, JobStatus, WorkflowName
from dstack.ports import Bucket

FIRST_JOB_RETRY_S = 2.0
LONGEST_JOB_RETRY_S = 30.0
"""Seconds before a job is taken up again after an error: the first time, and at most. A bucket may be away for days."""
UNCHECKED_WRITE_BYTES = 64 << 10
"""Bytes up to which an object is sent without a look whether the bucket has the object already."""
CLEANUP_DELAY_S = 3.0
"""Seconds after which a coordinator looks for leftovers of earlier coordinators on reached hosts."""
LINGER_LIMIT_S = 15.0
"""Seconds, at the end of a run, in which living lost attempts are ended."""
INTRODUCTION_DELAY_S = 1.0
"""Seconds before a coordinator gives its first sign of life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A run that is about to be recorded, and the data beside the record."""

    record: RunRecord
    files: Mapping[str, bytes]
    """Code digest -> list of the files behind it, for `why`."""
    diff: bytes


def submit(
    bucket: Bucket, keys: ProjectKeys, submission: Submission, *, rename: Callable[[RunRecord], RunRecord]
) -> RunRecord:
    """Record the run; from here on any coordinator can bring the run to its end. Returns the record with its final
    name.

    `rename` gives the same run another name, for when another run took the name at the same moment.
    """
    for digest, body in submission.files.items():
        key = keys.files(digest)
        # The list of a large project is not sent again with every run.
        if len(body) < UNCHECKED_WRITE_BYTES or not bucket.list(f"{key.rpartition('/')[0]}/", limit=1):
            bucket.create(key, body)
    if submission.diff:
        bucket.create(keys.diff(submission.record.snapshot.commit), submission.diff)
    # The record last: from the record on any coordinator works on the run, and finds everything that the record names.
    record = submission.record
    while not create_now(bucket, keys.name(record.name), encode_name(record.id)):
        record = rename(record)
    # A cache of a person's own runs, on which no decision rests: the answer of the store does not matter.
    bucket.create(keys.run_of(record.user, record.machine, record.id), b"{}")
    create_now(bucket, keys.run(record.id).record, pack(record))
    return record


class Coordination:
    """A run in the hands of one coordinator."""

    def __init__(self, context: CoordinationContext, run: RunRecord, me: Coordinator) -> None:
        self._context = context
        self._run = run
        self._me = me
        self._driver = Driver(context, run)
        self._replacements = Replacements(
            self._driver, context.screen, me, job_of=self._again, one_at_a_time=self._alone
        )
        self._settled: dict[WorkflowName, asyncio.Task[Outcome]] = {}
        self._same: dict[Fingerprint, asyncio.Lock] = {}

    async def finish(self) -> Final:
        """Bring every job to its outcome, and record the summary; returns the recorded summary."""
        async with self._context.heart:
            beside = [asyncio.create_task(self._introduce()), asyncio.create_task(self._tidy())]
            try:
                return await self._settle_all()
            finally:
                for task in beside:
                    task.cancel()
                await asyncio.gather(*beside, return_exceptions=True)

    async def _settle_all(self) -> Final:
        try:
            for spec in self._run.plan.jobs:
                self._settled[spec.workflow] = asyncio.create_task(self._job(spec))
            outcomes = await asyncio.gather(*self._settled.values())
            final = await self._sum_up(tuple(outcomes))
            await self._driver.give_time(LINGER_LIMIT_S)
            return final
        finally:
            for task in self._settled.values():
                task.cancel()
            await asyncio.gather(*self._settled.values(), return_exceptions=True)
            await self._driver.close()

    async def _job(self, spec: JobSpec) -> Outcome:
        inputs = await self._inputs(spec)
        pause, said = FIRST_JOB_RETRY_S, ""
        loss: JobDamage | None = None
        while True:
            try:
                outcome = await self._settle(spec, inputs, loss)
            except DamagedInputError as error:
                loss = await self._without(spec, error)
                continue
            except (DamagedObjectError, LaterVersionError) as error:
                loss = JobDamage(key=error.key, reason=f"{error}; {_way_out(spec, error)}")
                continue
            except DstackError as error:
                if said != str(error):
                    self._context.screen.message(f"{spec.workflow}: {error}; trying again")
                    pause, said = FIRST_JOB_RETRY_S, str(error)
                await asyncio.sleep(pause)
                pause = min(LONGEST_JOB_RETRY_S, pause * 1.25)
                continue
            self._driver.outcomes[spec.workflow] = outcome
            origin = outcome.reused_from or ""
            took = 0.0 if outcome.reused_from else seconds_between(outcome.started, outcome.ended) or 0.0
            show = self._context.screen.job
            show(spec.workflow, outcome.status, outcome.host, outcome.reason, took, reused_from=origin)
            return outcome

    async def _without(self, spec: JobSpec, damage: DamagedInputError) -> JobDamage | None:
        """Look for a replacement of a damaged input -> None when there is a replacement, else the reason why the job
        cannot be done."""
        pause = FIRST_JOB_RETRY_S
        while True:
            try:
                why = await self._replacements.replace(spec, damage)
            except DstackError as error:
                self._context.screen.message(f"{spec.workflow}: {error}; trying again")
                await asyncio.sleep(pause)
                pause = min(LONGEST_JOB_RETRY_S, pause * 1.25)
                continue
            reason = f"its input {damage.workflow} is damaged: {damage}; {why}; {damage.hint}"
            return JobDamage(key=damage.key, reason=reason) if why else None

    async def _inputs(self, spec: JobSpec) -> list[Outcome]:
        """The outcomes of the jobs with artifacts that this job takes; shows the jobs that are waited for."""
        waits = [dependency.workflow for dependency in spec.inputs]
        while open_ := [name for name in waits if not self._settled[name].done()]:
            self._context.screen.job(spec.workflow, JobStatus.WAITING, "", waits_text(open_))
            await asyncio.wait([self._settled[name] for name in open_], return_when=asyncio.FIRST_COMPLETED)
        return [self._settled[name].result() for name in waits]

    async def _settle(self, spec: JobSpec, inputs: Sequence[Outcome], loss: JobDamage | None) -> Outcome:
        """The outcome of the job; `loss` is the reason why the job cannot be done."""
        digests = {str(outcome.workflow): outcome.digest for outcome in inputs}
        job = Job(
            run=self._run,
            spec=spec,
            fingerprint=fingerprint(ingredients(spec, digests)),
            project=self._context.keys,
            fresh=fresh_reason(self._run, spec),
        )
        culprit = next((outcome for outcome in inputs if outcome.status not in GOOD_STATES), None)
        async with self._alone(job.fingerprint):
            if loss is not None:
                return await take(settlement.give_up(job, loss), self._driver)
            if culprit is not None:
                return await take(settlement.skip(job, culprit), self._driver)
            return await take(settlement.settle(job, self._me), self._driver)

    def _alone(self, job: Fingerprint) -> asyncio.Lock:
        # Two workflows of a run may be the same job; to the steps an attempt of this coordinator's own that nobody is
        # looking after is one to take up again, so only one of them may be at it.
        return self._same.setdefault(job, asyncio.Lock())

    def _again(self, taken: Outcome) -> Job:
        spec = next(spec for spec in self._run.plan.jobs if spec.workflow == taken.workflow)
        return Job(
            run=self._run,
            spec=spec,
            fingerprint=Fingerprint(taken.fingerprint),
            project=self._context.keys,
            above=taken.generation,
            again=True,
        )

    async def _sum_up(self, outcomes: tuple[Outcome, ...]) -> Final:
        final = summary_of(self._run, outcomes, self._context.new_nonce())
        key = self._context.keys.run(self._run.id).final
        there = await take(create_or_read(key, pack(final)), self._driver)
        try:
            return unpack(Final, key, there)
        except DamagedObjectError as error:
            # The run is over all the same; who asks for it is told by every command that reads the summary.
            self._context.screen.message(str(error))
            return final

    async def _tidy(self) -> None:
        """Clean up the reached hosts, once, after the jobs of the run had time to start."""
        await asyncio.sleep(CLEANUP_DELAY_S)
        for link in self._context.fleet.links.values():
            if link.reached is not None:
                await clean_up_host(
                    link.reached, self._context.bucket, self._context.keys, say=self._context.screen.message
                )

    async def _introduce(self) -> None:
        """Record the coordinator of the run, for people; a run with only reused jobs is over before that."""
        await asyncio.sleep(INTRODUCTION_DELAY_S)
        await self._context.heart.begin()
        mine = self._context.keys.run(self._run.id).coordinator(self._me.id)
        try:
            await asyncio.to_thread(self._context.bucket.create, mine, pack(self._me))
        except BucketError as error:
            self._context.screen.message(str(error))


def _way_out(spec: JobSpec, error: DamagedObjectError | LaterVersionError) -> str:
    if isinstance(error, LaterVersionError):
        return f"{error.hint}"
    return f"make it anew: dstack run {spec.workflow} --rerun"
