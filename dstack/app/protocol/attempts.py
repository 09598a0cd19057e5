"""One attempt: slot, claim, start, watch, collect, commit, in this order.

Slots first, so that a full host never sits on a job for an idle host. The claim before the first command, the result
after everything that the result names.
"""

from __future__ import annotations

from dataclasses import dataclass

from dstack.app.effects.answers import (
    BucketSilent,
    DamagedInput,
    JobStarted,
    JobUnkillable,
    NonceRefused,
    NotBegun,
    NotCollected,
    Prepared,
    SlotHeld,
    SlotUnavailable,
    StartRefused,
    StopAnswer,
    Unpreparable,
    WatchAnswer,
)
from dstack.app.effects.catalogue import (
    AskVerdict,
    BucketReader,
    Collect,
    Drop,
    HoldSlot,
    HowSilent,
    Linger,
    NewNonce,
    ObjectReader,
    Pause,
    Performer,
    Prepare,
    Read,
    Release,
    Show,
    StartJob,
    StopJob,
    WatchJob,
)
from dstack.app.effects.steps import Steps, ask
from dstack.app.protocol.attempt_records import (
    bring_in,
    record_end,
    record_ended,
    record_gone,
    record_lost,
    record_void,
)
from dstack.app.protocol.create_if_absent import create
from dstack.app.protocol.jobs import Job, ends_of, is_wanted, stop_of_job, stop_of_unwanted
from dstack.app.protocol.lease import SILENCE_S
from dstack.core import retry
from dstack.core.format.keys import AttemptKeys, JobKeys
from dstack.core.format.records import Claim, Coordinator, End, Outcome, Started, Want, pack, unpack
from dstack.core.lifecycle import AttemptEnd
from dstack.errors import BucketError, DamagedInputError, DamagedObjectError
from dstack.model import ExitReport, JobStatus, Nonce

WAITS_FOR_A_SLOT = "waits for a slot"
"""The note on a job in the queue of a host, where the queue itself says the rest."""
STOP_ATTEMPTS = 10
"""Times that a host is asked to end an attempt of no use to any run."""
FIRST_LOOK_S = 1.0
"""Seconds between two looks at stop requests and at other coordinators' results, at first."""
FIRST_PREPARE_PAUSE_S, LONGEST_PREPARE_PAUSE_S = 2.0, 30.0
"""Seconds between two tries of a request that the bucket does not answer: at first, and at most."""
LONGEST_LOOK_S = 3.0
"""The same of a job that has run for minutes: each look costs three requests."""


def make_attempt(job: Job, me: Coordinator, keys: JobKeys, number: int) -> Steps[Performer, Outcome | None]:
    """Try to make attempt `number`; everything that comes of the attempt is in the bucket afterwards.

    Returns the job's outcome where another coordinator of the run has recorded an outcome meanwhile, else None.
    """
    nonce = yield from ask(NewNonce())
    mine = keys.attempt(number)
    try:
        begun = yield from _begin(job, me, keys, mine, nonce)
    except BucketError:
        # The next try takes another nonce: what is held under this one would stand in its way.
        yield from ask(Drop(nonce))
        raise
    if not isinstance(begun, StartedAttempt):
        return begun
    yield from look_after(job, mine, begun.claim, at=begun.at)
    return None


@dataclass(frozen=True, slots=True)
class StartedAttempt:
    """The job of a claim was started, at a time of its host's clock; 0.0 where the host has not said when."""

    claim: Claim
    at: float


def _begin(
    job: Job, me: Coordinator, keys: JobKeys, mine: AttemptKeys, nonce: Nonce
) -> Steps[Performer, Outcome | StartedAttempt | None]:
    # A claim without a slot would keep the job from idle hosts for as long as this host is full.
    held = yield from _hold(job, keys, nonce, mine.number)
    if held is not None:
        claim = _claim_of(job, me, nonce, held)
        if (yield from create(mine.claim, pack(claim))):
            return (yield from _claimed(job, mine, claim))
    yield from ask(Drop(nonce))
    return None


def _claim_of(job: Job, me: Coordinator, nonce: Nonce, held: SlotHeld) -> Claim:
    return Claim(
        nonce=nonce,
        run=job.run.id,
        run_name=job.run.name,
        host=held.host,
        address=held.address,
        boot_id=held.boot_id,
        coordinator=me,
        max_duration=job.spec.max_duration,
        account=held.account,
        folder=held.folder,
        place=held.place,
        machine=held.machine,
    )


def _claimed(job: Job, mine: AttemptKeys, claim: Claim) -> Steps[Performer, Outcome | StartedAttempt | None]:
    """Start the job unless no run wants the attempt any more.

    All looks come after the claim stands: `dstack stop` looks for claims after the stop request stands, so at least one
    of the two sees the other. A slow coordinator may also work in another generation than the generation of its run's
    recorded, and the run of a very slow coordinator may have been pruned, record first.
    """
    stop = yield from stop_of_job(job)
    # A run that needs artifacts anew has an outcome of the job already: only the summary ends the need.
    recorded = yield from ask(Read(job.run_keys.final if job.again else job.run_keys.job(job.spec.workflow)))
    if recorded is None and (yield from ask(Read(job.run_keys.record))) is None:
        yield from ask(Drop(Nonce(claim.nonce)))
        report = ExitReport(code=None, reason="the records of its run were pruned")
        yield from record_end(mine, claim, report, status=AttemptEnd.VOID)
        return (yield from job.outcome(JobStatus.STOPPED, reason=report.reason))
    if stop is None and recorded is None:
        return (yield from _start(job, mine, claim))
    yield from ask(Drop(Nonce(claim.nonce)))
    reason = stop.reason if stop else "the run has an outcome of it already"
    report = ExitReport(code=None, stopped=stop is not None, reason=reason)
    yield from record_end(mine, claim, report, status=AttemptEnd.STOPPED if stop else AttemptEnd.VOID)
    if recorded is not None and job.again:
        return (yield from job.outcome(JobStatus.STOPPED, reason=reason))
    return unpack(Outcome, job.run_keys.job(job.spec.workflow), recorded) if recorded is not None else None


def _hold(job: Job, keys: JobKeys, nonce: Nonce, number: int) -> Steps[Performer, SlotHeld | None]:
    """Wait for a slot for attempt `number`; None when the job needs no slot any more: the job was stopped, or done by
    another coordinator, or another coordinator took the attempt, or hosts refuse the nonce."""
    workflow = job.spec.workflow
    while True:
        answer = yield from ask(HoldSlot(nonce, job.spec, FIRST_LOOK_S))
        if isinstance(answer, SlotHeld):
            return answer
        if isinstance(answer, NonceRefused):
            return None
        note = answer.why if isinstance(answer, SlotUnavailable) else WAITS_FOR_A_SLOT
        yield from ask(Show(workflow=workflow, status=JobStatus.QUEUED, note=note))
        if (yield from stop_of_job(job)) is not None or (yield from ask(Read(keys.result))) is not None:
            return None
        if (yield from ask(Read(keys.attempt(number).claim))) is not None:
            return None


def _start(job: Job, mine: AttemptKeys, claim: Claim) -> Steps[Performer, StartedAttempt | None]:
    """The claim is ours: bring everything to the host and let the supervisor start the job."""
    workflow = job.spec.workflow
    yield from ask(Show(workflow=workflow, status=JobStatus.PREPARING, host=claim.host, attempt=mine, mine=True))
    prepared = yield from _prepare(job, mine, claim)
    if isinstance(prepared, DamagedInput):
        # The refusal before the end: once the end stands, any coordinator may claim the next attempt.
        yield from ask(Drop(Nonce(claim.nonce)))
        yield from record_void(mine, claim, f"its input {prepared.workflow} is damaged: {prepared.why}")
        yield from ask(Release(claim))
        raise DamagedInputError(prepared.workflow, prepared.key, prepared.why)
    if isinstance(prepared, Unpreparable):
        yield from ask(Drop(Nonce(claim.nonce)))
        # The log alone: a host that refuses `prepare` writes the reason there, and no job has made anything.
        yield from ask(Collect(claim, workflow, mine, partial=True, keep=False))
        yield from record_end(mine, claim, ExitReport(code=None, reason=prepared.why), status=AttemptEnd.FAILED)
        yield from ask(Release(claim))
        return None
    if (yield from ask(Read(mine.end))) is not None:
        yield from ask(Drop(Nonce(claim.nonce)))  # called lost meanwhile: nothing of it may begin now
        return None
    begun = prepared if isinstance(prepared, NotBegun) else (yield from _go(job, mine, claim))
    if isinstance(begun, NotBegun):
        yield from ask(Drop(Nonce(claim.nonce)))
        yield from record_void(mine, claim, begun.why)
        yield from ask(Release(claim))
        return None
    return StartedAttempt(claim, begun.at)


def _prepare(
    job: Job, mine: AttemptKeys, claim: Claim
) -> Steps[Performer, Prepared | Unpreparable | NotBegun | DamagedInput]:
    """Prepare the attempt, also after silences of the bucket; NotBegun too when no run wants the attempt any more by
    then."""
    pause = FIRST_PREPARE_PAUSE_S
    while True:
        answer = yield from ask(Prepare(claim, job.spec, mine))
        if not isinstance(answer, BucketSilent):
            return answer
        note = f"{answer.why}; trying again"
        yield from ask(
            Show(workflow=job.spec.workflow, status=JobStatus.PREPARING, host=claim.host, note=note, mine=True)
        )
        yield from ask(Pause(pause))
        pause = min(LONGEST_PREPARE_PAUSE_S, pause * 1.5)
        if (yield from stop_of_job(job)) is not None or (yield from ask(Read(mine.end))) is not None:
            return NotBegun("it was not wanted any more when the bucket answered")


def _go(job: Job, mine: AttemptKeys, claim: Claim) -> Steps[Performer, JobStarted | NotBegun]:
    """Have the supervisor start the job; where the answer is lost, the verdict of the host counts."""
    answer = yield from ask(StartJob(claim, job.spec))
    if isinstance(answer, JobStarted):
        return answer
    if isinstance(answer, StartRefused):
        # Without a reason: `record_void` says that the attempt never started.
        return NotBegun("")
    if (yield from _has_started(job, mine, claim)):
        return JobStarted()
    return NotBegun(f"the connection to {claim.host} was lost before the job began")


def _has_started(job: Job, mine: AttemptKeys, claim: Claim) -> Steps[Performer, bool]:
    """The verdict of the host on a start whose answer was lost; asks until the host answers."""
    while True:
        verdict = yield from ask(AskVerdict(claim))
        if isinstance(verdict, JobStarted | StartRefused):
            return isinstance(verdict, JobStarted)
        yield from _lose_silent(job, mine, claim)
        if (yield from ask(Read(mine.end))) is not None:
            return False
        note = f"{claim.host} cannot be reached"
        yield from ask(Show(workflow=job.spec.workflow, status=JobStatus.PREPARING, host=claim.host, note=note))
        yield from ask(Pause(FIRST_LOOK_S))


def may_try_again(job: Job, last: AttemptKeys, want: Want | None) -> Steps[ObjectReader, bool]:
    """Whether this run's `retry` permits an attempt after `last`, should `last` be called lost for the silence of its
    host."""
    if want is None:
        return False
    ends = yield from ends_of(last.generation, want.ended, last.number - 1)
    return retry.may_try_again(tuple(end.status for end in ends), job.spec.retry)


def _lose_silent(job: Job, mine: AttemptKeys, claim: Claim) -> Steps[Performer, None]:
    """Call this coordinator's own attempt lost where the host has been silent for long and `retry` permits another."""
    silence = yield from ask(HowSilent(claim))
    if silence.seconds < SILENCE_S:
        return
    key = mine.generation.want(job.run.id)
    body = yield from ask(Read(key))
    want = unpack(Want, key, body) if body is not None else None
    if (yield from may_try_again(job, mine, want)):
        yield from record_lost(mine, claim, f"{claim.host} unreachable since {silence.since}")


def _end_of(mine: AttemptKeys) -> Steps[ObjectReader, End | None]:
    """The recorded end of the attempt, by any coordinator; None before there is an end."""
    # One read decides: a prune may take the record away before a second read.
    body = yield from ask(Read(mine.end))
    if body is None:
        return None
    try:
        return unpack(End, mine.end, body)
    except DamagedObjectError:
        return None  # whatever it says: a result that comes before the next attempt is the result


def _is_over(job: Job, mine: AttemptKeys, claim: Claim) -> Steps[Performer, bool]:
    """Whether the records say that this coordinator's own attempt has ended, by any coordinator; a lost attempt is
    watched aside from then on, so that the job can go on."""
    yield from _lose_silent(job, mine, claim)
    end = yield from _end_of(mine)
    if end is not None and end.status == AttemptEnd.LOST:
        yield from ask(Linger(claim, _linger(job, mine, claim)))
    return end is not None


def _is_in_vain(job: Job, mine: AttemptKeys) -> Steps[BucketReader, bool]:
    """Whether nothing can come of a lost attempt any more: another attempt has the result, or no run waits for the
    job."""
    result = yield from ask(Read(mine.generation.result))
    return result is not None or not (yield from is_wanted(job.project, mine, job.run.id))


def look_after(job: Job, mine: AttemptKeys, claim: Claim, *, at: float = 0.0) -> Steps[Performer, None]:
    """Watch a started attempt to its end, and bring the end into the bucket; safe beside other owners and zombies.

    `at` is the time of the start, where the host has just said so. An adopter does not know the time, and writes a body
    that differs: that does no harm, because the first writer's record stands and no step depends on the writer.
    """
    workflow = job.spec.workflow
    yield from ask(Show(workflow=workflow, status=JobStatus.RUNNING, host=claim.host, attempt=mine, mine=True))
    yield from create(mine.started, pack(Started(nonce=claim.nonce, at=at)))
    abort = False
    patience, note = FIRST_LOOK_S, ""
    while True:
        answer: WatchAnswer | StopAnswer = yield from ask(WatchJob(claim, workflow, mine, patience))
        # Growth by 2 % a look: a new job is looked at often, and the longest interval is reached in some two minutes.
        patience = min(LONGEST_LOOK_S, patience * 1.02)
        if isinstance(answer, ExitReport):
            break
        if (yield from _is_over(job, mine, claim)):
            return
        stop = yield from stop_of_unwanted(job, mine)
        if stop is not None:
            abort = stop.abort
            stopping = JobStatus.STOPPING
            yield from ask(
                Show(workflow=workflow, status=stopping, host=claim.host, note=note, attempt=mine, mine=True)
            )
            answer = yield from ask(StopJob(claim, abort))
            if isinstance(answer, ExitReport):
                break
            note = answer.why if isinstance(answer, JobUnkillable) else ""
    yield from _finish(job, mine, claim, answer, abort=abort)


def _linger(job: Job, mine: AttemptKeys, claim: Claim) -> Steps[Performer, None]:
    """Watch a lost attempt that may live: its result counts if no other comes first. The attempt is ended where it
    still runs as soon as nothing can come of it any more."""
    while True:
        report = yield from ask(WatchJob(claim, job.spec.workflow, mine, LONGEST_LOOK_S))
        if isinstance(report, ExitReport) and (yield from bring_in(mine, claim, report, job.spec.workflow)):
            return
        if (yield from _is_in_vain(job, mine)):
            break
    # Of a host out of reach the attempt is left to the next coordinator of the account that reaches the host.
    for _ in range(STOP_ATTEMPTS):
        if isinstance((yield from ask(StopJob(claim, True))), ExitReport):
            yield from record_gone(mine, claim)
            yield from ask(Release(claim))
            return
        yield from ask(Pause(FIRST_LOOK_S))


def _finish(job: Job, mine: AttemptKeys, claim: Claim, report: ExitReport, *, abort: bool) -> Steps[Performer, None]:
    workflow = job.spec.workflow
    yield from ask(Show(workflow=workflow, status=JobStatus.UPLOADING, host=claim.host, attempt=mine, mine=True))
    while True:
        collected = yield from ask(Collect(claim, workflow, mine, partial=not report.succeeded, keep=not abort))
        if not isinstance(collected, NotCollected):
            yield from record_ended(mine, claim, report, collected)
            return
        if (yield from _is_over(job, mine, claim)):
            return
        yield from ask(Pause(FIRST_LOOK_S))
