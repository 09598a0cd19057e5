"""Runs and jobs as people and scripts see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dstack.core.format.key_rules import is_part
from dstack.core.format.records import Final, Outcome, RunRecord, at_machine
from dstack.core.lifecycle import BEGUN, ENDED, NOT_BEGUN, RAN, overall_status
from dstack.core.spans import seconds_between
from dstack.model import JobStatus, RunId, RunName, RunStatus, WorkflowName
from dstack.wire.kinds import LATEST

NAMED_JOBS = 3
"""Jobs that are named where a job waits for them; of more only their number is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """One job of a run. `attempt` and `generation` are 0 while there is no attempt; times are 0.0 while unknown."""

    workflow: WorkflowName
    status: JobStatus
    host: str = ""
    attempt: int = 0
    fingerprint: str = ""
    reused_from: RunName | None = None
    reason: str = ""
    generation: int = 0
    started: float = 0.0
    ended: float = 0.0
    owner: str = ""
    """Who looks after the attempt (user@machine), while there is one that has not ended."""
    left: bool = False
    """Nobody does any more: it runs on, or its result waits on its host."""
    unreachable: float = 0.0
    """Since when, in seconds since the epoch, the host has not answered whoever looks after the attempt."""
    account: str = ""
    """Whose the attempt is on its host, where nobody looks after it: only that account can bring it to its end."""
    sighting: str = ""
    """What somebody who reaches the host under another account sees of it: a value of `core.sightings.Sighting`."""
    lost: tuple[int, ...] = ()
    """Its attempts that were called lost and may live on their hosts."""
    unheard: float = 0.0
    """When that one itself was heard of last, where that is longer ago than it should be."""

    @property
    def began(self) -> bool:
        """Whether its script began in this run; of a job that was lost, whether it may have."""
        if self.status in (JobStatus.FAILED, JobStatus.STOPPED):
            return bool(self.attempt and (self.started or self.ended))
        return self.status in BEGUN or self.status in RAN


@dataclass(frozen=True, slots=True, kw_only=True)
class Caretakers:
    """Who looks after a run that is not final, as far as the bucket and this machine tell at once.

    `by` are those who live or may live (user@machine). Without any, `last` is who was heard of last and `seen` when,
    in seconds since the epoch by that machine's clock; "" and 0.0 when that is not known. `over`: when the credentials
    ended that `last` had been lent, where it is silent because of that. `standby`: the hosts that stand by for `last`,
    while that one is silent and they are expected to go on by themselves.
    """

    by: tuple[str, ...] = ()
    last: str = ""
    seen: float = 0.0
    over: float = 0.0
    standby: tuple[str, ...] = ()


def time_of_day(seconds: float) -> float:
    """Seconds since the epoch out of a record; 0.0, as for "not known", where no clock can have said so."""
    return seconds if 0 < seconds < LATEST else 0.0


def waits_text(workflows: Sequence[str]) -> str:
    """What a job waits for: `waits for a, b`; `waits for 97 jobs` where naming them would fill the screen."""
    few = len(workflows) <= NAMED_JOBS
    return f"waits for {', '.join(workflows)}" if few else f"waits for {len(workflows)} jobs"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run with its jobs in the order of its plan. Times are seconds since the epoch; `ended` 0.0: not yet."""

    id: RunId
    run: RunName
    workflow: WorkflowName
    status: RunStatus
    user: str
    submitted: float
    jobs: tuple[JobView, ...]
    machine: str = ""
    ended: float = 0.0
    tended: Caretakers | None = None

    @property
    def handle(self) -> str:
        """What to write for the run in a command line: its name, or its id where the name would do more than name."""
        return self.run if is_part(self.run) and not self.run.startswith("-") else self.id

    @property
    def person(self) -> str:
        """Who asked for the run: user@machine."""
        return at_machine(self.user, self.machine)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Where its attempts are that have not ended, each once; of a run that has ended, where it ran."""
        over = self.status is not RunStatus.RUNNING
        places = [
            job.host for job in self.jobs if job.host and (job.status in RAN if over else job.status not in ENDED)
        ]
        return tuple(dict.fromkeys(places))

    def took(self, now: float) -> float | None:
        """Seconds from the start of its first job to its end, or to `now` while one runs; None where none has run, or
        where a clock is wrong."""
        starts = [job.started for job in self.jobs if job.started and job.status is not JobStatus.REUSED]
        if not starts:
            return None
        ends = [job.ended for job in self.jobs if job.status in RAN]
        return seconds_between(min(starts), max(ends) if self.status is not RunStatus.RUNNING and ends else now)

    @property
    def stage(self) -> RunStatus | JobStatus:
        """Its status in one word for people: `running` once a job of it has begun, before that the state of the job
        that is nearest to its beginning, as `queued`."""
        if self.status is not RunStatus.RUNNING or any(job.began for job in self.jobs):
            return self.status
        found = {job.status for job in self.jobs}
        return next((status for status in NOT_BEGUN if status in found), self.status)

    @property
    def alone(self) -> bool:
        """Whether the presence records were read and show that nobody looks after the run."""
        return self.tended is not None and not self.tended.by


def summary_of(run: RunRecord, outcomes: Sequence[Outcome], nonce: str) -> Final:
    """The summary of a run whose jobs have these outcomes, in the order of its plan."""
    return Final(
        nonce=nonce,
        run=run.name,
        user=run.user,
        machine=run.machine,
        submitted=run.submitted,
        workflow=run.workflow,
        status=overall_status([outcome.status for outcome in outcomes]),
        ended=max((outcome.ended for outcome in outcomes), default=0.0),
        jobs=tuple(outcomes),
    )


def view_of(outcome: Outcome) -> JobView:
    """A job that has its outcome."""
    return JobView(
        workflow=outcome.workflow,
        status=outcome.status,
        host=outcome.host,
        attempt=outcome.attempt,
        fingerprint=outcome.fingerprint,
        reused_from=outcome.reused_from,
        reason=outcome.reason,
        generation=outcome.generation,
        started=time_of_day(outcome.started),
        ended=time_of_day(outcome.ended),
    )
