"""Runs and jobs as people and scripts see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dstack.core.format.key_rules import is_part
from dstack.core.format.records import Final, Outcome, RunRecord, at_machine
from dstack.core.lifecycle import BEGUN_STATES, ENDED_STATES, NOT_BEGUN_STATES, RAN_STATES, overall_status
from dstack.core.time_spans import seconds_between
from dstack.model import JobStatus, RunId, RunName, RunStatus, WorkflowName
from dstack.wire.field_kinds import LATEST

NAMED_JOBS = 3
"""Jobs named where a job waits for others; of more only their number is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job of a run. `attempt` and `generation` are 0 while there is no attempt; times are 0.0 while unknown."""

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
    """The owner of the attempt (user@machine), while the attempt lasts."""
    ownerless: bool = False
    """No coordinator looks after the attempt any more: the attempt runs on, or its result waits on its host."""
    unreachable: float = 0.0
    """Since when, in seconds since the epoch, the host has not answered the owner of the attempt."""
    account: str = ""
    """The account of an attempt without an owner, on its host: only this account can bring the attempt to its end."""
    sighting: str = ""
    """The sighting of the attempt by another account on the host: a value of `core.sightings.Sighting`."""
    lost: tuple[int, ...] = ()
    """The lost attempts of the job that may live on their hosts."""
    unheard: float = 0.0
    """The time of the owner's last beat, where the next beat is late."""

    @property
    def began(self) -> bool:
        """Whether the script began in this run; of a lost job, whether the script may have begun."""
        if self.status in (JobStatus.FAILED, JobStatus.STOPPED):
            return bool(self.attempt and (self.started or self.ended))
        return self.status in BEGUN_STATES or self.status in RAN_STATES


@dataclass(frozen=True, slots=True, kw_only=True)
class Caretakers:
    """The coordinators of a run without a summary, as far as the bucket and this machine tell at once.

    `by` are the coordinators that live or may live (user@machine). Where `by` is empty, `last` is the last coordinator
    with a beat and `last_beat` the time of the beat, in seconds since the epoch by the clock of its machine; "" and 0.0
    when not known. `credentials_end`: the end of the lent credentials of `last`, where `last` is silent because of the
    end. `standby`: the hosts in stand-by for `last`, while `last` is silent and the hosts are expected to go on by
    themselves.
    """

    by: tuple[str, ...] = ()
    last: str = ""
    last_beat: float = 0.0
    credentials_end: float = 0.0
    standby: tuple[str, ...] = ()


def time_of_day(seconds: float) -> float:
    """Seconds since the epoch out of a record; 0.0, as for "not known", where no clock can have said so."""
    return seconds if 0 < seconds < LATEST else 0.0


def waits_text(workflows: Sequence[str]) -> str:
    """The reason of a waiting job: `waits for a, b`; `waits for 97 jobs` where the names would fill the screen."""
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
    caretakers: Caretakers | None = None

    @property
    def handle(self) -> str:
        """The run in a command line: its name, or its id where the name would do more than name."""
        return self.run if is_part(self.run) and not self.run.startswith("-") else self.id

    @property
    def person(self) -> str:
        """The person behind the run: user@machine."""
        return at_machine(self.user, self.machine)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts of its open attempts, each once; of an ended run, the hosts of all its attempts."""
        over = self.status is not RunStatus.RUNNING
        places = [
            job.host
            for job in self.jobs
            if job.host and (job.status in RAN_STATES if over else job.status not in ENDED_STATES)
        ]
        return tuple(dict.fromkeys(places))

    def took(self, now: float) -> float | None:
        """Seconds from the start of the first job to the end of the run, or to `now` while the run goes on.

        None before the first start, or where a clock is wrong.
        """
        starts = [job.started for job in self.jobs if job.started and job.status is not JobStatus.REUSED]
        if not starts:
            return None
        ends = [job.ended for job in self.jobs if job.status in RAN_STATES]
        return seconds_between(min(starts), max(ends) if self.status is not RunStatus.RUNNING and ends else now)

    @property
    def stage(self) -> RunStatus | JobStatus:
        """The status in one word for people: `running` once a job has begun, before that the state of the most advanced
        job, as `queued`."""
        if self.status is not RunStatus.RUNNING or any(job.began for job in self.jobs):
            return self.status
        found = {job.status for job in self.jobs}
        return next((status for status in NOT_BEGUN_STATES if status in found), self.status)

    @property
    def alone(self) -> bool:
        """Whether the presence records were read and show no living coordinator of the run."""
        return self.caretakers is not None and not self.caretakers.by


def summary_of(run: RunRecord, outcomes: Sequence[Outcome], nonce: str) -> Final:
    """The summary of a run by the outcomes of its jobs, in the order of its plan."""
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
    """The view of a job with an outcome."""
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
