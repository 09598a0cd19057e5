"""One attempt: slot, claim, start, watch, collect, commit, in this order.

Slots first, so that a full host never sits on a job that an idle one could run. The claim before the first command,
the result after everything that it names.
"""

from __future__ import annotations

from dataclasses import dataclass

from dstack.app.protocol.create_rule import create
from dstack.app.protocol.effects import (
    WAITS_FOR_A_SLOT,
    AskVerdict,
    Collect,
    Collected,
    DamagedInput,
    Drop,
    Go,
    Held,
    Hold,
    HowSilent,
    Later,
    Linger,
    NewNonce,
    NotBegun,
    Pause,
    Prepare,
    Read,
    Release,
    Show,
    Steps,
    StopJob,
    Watch,
)
from dstack.app.protocol.jobs import Job, ends_of, stop_asked, unwanted, wanted
from dstack.app.protocol.lease import SILENCE
from dstack.core import retry
from dstack.core.format.keys import AttemptKeys, JobKeys
from dstack.core.format.records import Claim, Coordinator, End, Gone, Outcome, Result, Started, Want, pack, unpack
from dstack.core.lifecycle import AttemptEnd, end_without_result
from dstack.errors import BucketError, DamagedInputError, DamagedObjectError
from dstack.model import ExitReport, JobStatus, Nonce, WorkflowName
from dstack.wire import STARTED

STOP_TRIES = 10
"""Times that a host is asked to end an attempt that nobody waits for."""
PATIENCE = 1.0
"""Seconds between two looks at stop requests and at other coordinators' results, at first."""
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 30.0
"""Seconds between two tries of what the bucket does not answer: at first, and at most."""
LONGEST = 3.0
"""The same of a job that has run for minutes: each look costs three requests."""


def attempt(job: Job, me: Coordinator, keys: JobKeys, number: int) -> Steps[Outcome | None]:
    """Try to make attempt `number`; whatever comes of it is in the bucket afterwards.

    Returns the job's outcome where another coordinator of the run has recorded one meanwhile, else None.
    """
    nonce = yield NewNonce()
    mine = keys.attempt(number)
    try:
        begun = yield from _begin(job, me, keys, mine, nonce)
    except BucketError:
        # The next try takes another nonce: what is held under this one would stand in its way.
        yield Drop(nonce)
        raise
    if not isinstance(begun, Begun):
        return begun
    yield from look_after(job, mine, begun.claim, at=begun.at)
    return None


@dataclass(frozen=True, slots=True)
class Begun:
    """The job of a claim was started, at a time of its host's clock; 0.0 where the host has not said when."""

    claim: Claim
    at: float


def _begin(job: Job, me: Coordinator, keys: JobKeys, mine: AttemptKeys, nonce: Nonce) -> Steps[Outcome | Begun | None]:
    held = yield from _hold(job, keys, nonce, mine.number)
    if held is not None:
        claim = _claim_of(job, me, nonce, held)
        if (yield from create(mine.claim, pack(claim))):
            return (yield from _claimed(job, mine, claim))
    yield Drop(nonce)
    return None


def _claim_of(job: Job, me: Coordinator, nonce: Nonce, held: Held) -> Claim:
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


def _claimed(job: Job, mine: AttemptKeys, claim: Claim) -> Steps[Outcome | Begun | None]:
    """Start the job unless nobody wants it any more.

    All looks come after the claim stands. Who calls the run stopped looked for claims after the stop stood, so one of
    the two sees the other. And a coordinator that was slow may work in another generation than the one that brought
    its run an outcome; when it was very slow, its run may have been pruned, record first.
    """
    stop = yield from stop_asked(job)
    told = yield Read(job.run_keys.final if job.again else job.run_keys.job(job.spec.workflow))
    if told is None and (yield Read(job.run_keys.record)) is None:
        yield Drop(Nonce(claim.nonce))
        report = ExitReport(code=None, reason="the records of its run were pruned")
        yield from _end(mine, claim, report, status=AttemptEnd.VOID)
        return (yield from job.outcome(JobStatus.STOPPED, reason=report.reason))
    if stop is None and told is None:
        return (yield from _start(job, mine, claim))
    yield Drop(Nonce(claim.nonce))
    reason = stop.reason if stop else "the run has an outcome of it already"
    report = ExitReport(code=None, stopped=stop is not None, reason=reason)
    yield from _end(mine, claim, report, status=AttemptEnd.STOPPED if stop else AttemptEnd.VOID)
    if told is not None and job.again:
        return (yield from job.outcome(JobStatus.STOPPED, reason=reason))
    return unpack(Outcome, job.run_keys.job(job.spec.workflow), told) if told is not None else None


def _hold(job: Job, keys: JobKeys, nonce: Nonce, number: int) -> Steps[Held | None]:
    """Wait for a slot for attempt `number`; None when the job needs none any more: it was stopped, or done by another,
    or another took that attempt."""
    workflow = job.spec.workflow
    while True:
        held = yield Hold(nonce, workflow, PATIENCE)
        if isinstance(held, Held):
            return held
        if held is False:
            return None
        note = held if isinstance(held, str) else WAITS_FOR_A_SLOT
        yield Show(workflow=workflow, status=JobStatus.QUEUED, note=note)
        if (yield from stop_asked(job)) is not None or (yield Read(keys.result)) is not None:
            return None
        if (yield Read(keys.attempt(number).claim)) is not None:
            return None


def _start(job: Job, mine: AttemptKeys, claim: Claim) -> Steps[Begun | None]:
    """The claim is ours: bring everything to the host and let the supervisor go."""
    workflow = job.spec.workflow
    yield Show(workflow=workflow, status=JobStatus.PREPARING, host=claim.host, attempt=mine, mine=True)
    failure = yield from _prepare(job, mine, claim)
    if isinstance(failure, DamagedInput):
        yield Drop(Nonce(claim.nonce))
        report = ExitReport(code=None, reason=f"its input {failure.workflow} is damaged: {failure.why}")
        yield from _end(mine, claim, report, status=AttemptEnd.VOID)
        yield Release(claim)
        raise DamagedInputError(failure.workflow, failure.key, failure.why)
    if isinstance(failure, str):
        yield Drop(Nonce(claim.nonce))
        yield Collect(claim, workflow, mine, partial=True, keep=False)
        yield from _end(mine, claim, ExitReport(code=None, reason=failure), status=AttemptEnd.FAILED)
        yield Release(claim)
        return None
    if (yield Read(mine.end)) is not None:
        yield Drop(Nonce(claim.nonce))  # called lost meanwhile: nothing of it may begin now
        return None
    at = None if isinstance(failure, NotBegun) else (yield Go(claim, workflow))
    started = at > 0 if at is not None else (yield from _verdict(job, mine, claim))
    if not started:
        lost = f"the connection to {claim.host} was lost before the job began" if at is None else ""
        yield Drop(Nonce(claim.nonce))
        yield from void(mine, claim, failure.why if isinstance(failure, NotBegun) else lost)
        yield Release(claim)
        return None
    return Begun(claim, at or 0.0)


def _prepare(job: Job, mine: AttemptKeys, claim: Claim) -> Steps[DamagedInput | NotBegun | str | None]:
    """Prepare, also after silences of the bucket -> as `Prepare` answers; NotBegun too when it is wanted no more."""
    pause = FIRST_PAUSE
    while True:
        found: DamagedInput | Later | NotBegun | str | None = yield Prepare(claim, job.spec.workflow, mine)
        if not isinstance(found, Later):
            return found
        note = f"{found.why}; trying again"
        yield Show(workflow=job.spec.workflow, status=JobStatus.PREPARING, host=claim.host, note=note, mine=True)
        yield Pause(pause)
        pause = min(LONGEST_PAUSE, pause * 1.5)
        if (yield from stop_asked(job)) is not None or (yield Read(mine.end)) is not None:
            return NotBegun(why="it was not wanted any more when the bucket answered")


def _verdict(job: Job, mine: AttemptKeys, claim: Claim) -> Steps[bool]:
    """What the host says of a start whose answer was lost; asks until it answers."""
    while True:
        verdict = yield AskVerdict(claim)
        if isinstance(verdict, str):
            return verdict == STARTED
        yield from _lose_silent(job, mine, claim)
        if (yield Read(mine.end)) is not None:
            return False
        note = f"{claim.host} cannot be reached"
        yield Show(workflow=job.spec.workflow, status=JobStatus.PREPARING, host=claim.host, note=note)
        yield Pause(PATIENCE)


def void(attempt_keys: AttemptKeys, claim: Claim, why: str = "") -> Steps[None]:
    """The host has refused this attempt for ever: whoever looks next may claim the following one."""
    report = ExitReport(code=None, reason=why or f"it never started on {claim.host}")
    yield from _end(attempt_keys, claim, report, status=AttemptEnd.VOID)


def lose(attempt_keys: AttemptKeys, claim: Claim, reason: str) -> Steps[None]:
    """Nobody can know what became of the attempt: say so, so that another one may be made. Should it live after all and
    be the first to come to a result, that result counts."""
    yield from _end(attempt_keys, claim, ExitReport(code=None, reason=reason, vanished=True), status=AttemptEnd.LOST)


def may_try_again(job: Job, last: AttemptKeys, want: Want | None) -> Steps[bool]:
    """Whether this run's `retry` permits an attempt after `last`, should that be called lost without anybody's word."""
    if want is None:
        return False
    ends = yield from ends_of(last.generation, want.ended, last.number - 1)
    return retry.may_try_again(tuple(end.status for end in ends), job.spec.retry)


def _lose_silent(job: Job, mine: AttemptKeys, claim: Claim) -> Steps[None]:
    """Call this coordinator's own attempt lost where its host has been silent for long and `retry` permits another."""
    silence = yield HowSilent(claim)
    if silence.seconds < SILENCE:
        return
    key = mine.generation.want(job.run.id)
    body = yield Read(key)
    want = unpack(Want, key, body) if body is not None else None
    if (yield from may_try_again(job, mine, want)):
        yield from lose(mine, claim, f"{claim.host} unreachable since {silence.since}")


def _end_of(mine: AttemptKeys) -> Steps[End | None]:
    """How the attempt ended by the records, whoever wrote that; None while it has not."""
    body = yield Read(mine.end)
    if body is None:
        return None
    try:
        return unpack(End, mine.end, body)
    except DamagedObjectError:
        return None  # whatever it says: a result that comes before the next attempt is the result


def _is_over(job: Job, mine: AttemptKeys, claim: Claim) -> Steps[bool]:
    """Whether the records say that this coordinator's own attempt has ended, whoever wrote that; a lost attempt is
    watched aside from then on, so that the job can go on."""
    yield from _lose_silent(job, mine, claim)
    end = yield from _end_of(mine)
    if end is not None and end.status == AttemptEnd.LOST:
        yield Linger(claim, _linger(job, mine, claim))
    return end is not None


def record_gone(mine: AttemptKeys, claim: Claim) -> Steps[None]:
    """Say of an attempt that is lost, or was called so, that nothing of it lives."""
    yield from create(mine.gone, pack(Gone(nonce=claim.nonce)))


def _is_in_vain(job: Job, mine: AttemptKeys) -> Steps[bool]:
    """Whether nothing can come of a lost attempt any more: another one has the result, or nobody waits for it."""
    return (yield Read(mine.generation.result)) is not None or not (yield from wanted(job.project, mine, job.run.id))


def look_after(job: Job, mine: AttemptKeys, claim: Claim, *, at: float = 0.0) -> Steps[None]:
    """A started attempt, to its end and into the bucket; safe beside other owners and zombies.

    `at` is when it started, where its host has just said so. An adopter does not know it, and writes a body that
    differs: that does no harm, for whoever comes second changes nothing, and no step depends on who came first.
    """
    workflow = job.spec.workflow
    yield Show(workflow=workflow, status=JobStatus.RUNNING, host=claim.host, attempt=mine, mine=True)
    yield from create(mine.started, pack(Started(nonce=claim.nonce, at=at)))
    abort = False
    report: ExitReport | None = None
    patience, note = PATIENCE, ""
    while report is None:
        report = yield Watch(claim, workflow, mine, patience)
        patience = min(LONGEST, patience * 1.02)
        if report is not None:
            break
        if (yield from _is_over(job, mine, claim)):
            return
        stop = yield from unwanted(job, mine)
        if stop is not None:
            abort = stop.abort
            yield Show(
                workflow=workflow, status=JobStatus.STOPPING, host=claim.host, note=note, attempt=mine, mine=True
            )
            ended = yield StopJob(claim, abort)
            report, note = (ended, "") if isinstance(ended, ExitReport) else (None, ended or "")
    yield from _finish(job, mine, claim, report, abort=abort)


def _linger(job: Job, mine: AttemptKeys, claim: Claim) -> Steps[None]:
    """A lost attempt that may live: its result counts if it comes first; it is ended where it still runs as soon as
    nothing can come of it any more."""
    while True:
        report = yield Watch(claim, job.spec.workflow, mine, LONGEST)
        if report is not None and (yield from bring_in(mine, claim, report, job.spec.workflow)):
            return
        if (yield from _is_in_vain(job, mine)):
            break
    for _ in range(STOP_TRIES):
        if isinstance((yield StopJob(claim, True)), ExitReport):
            yield from record_gone(mine, claim)
            yield Release(claim)
            return
        yield Pause(PATIENCE)


def bring_in(mine: AttemptKeys, claim: Claim, report: ExitReport, workflow: WorkflowName) -> Steps[bool]:
    """Bring all of a lost attempt that has ended into the bucket, then have the host forget it -> False while the host
    cannot be reached. Its result counts if it comes first."""
    collected = yield Collect(claim, workflow, mine, partial=not report.succeeded, keep=True)
    if collected is None:
        return False
    yield from record_gone(mine, claim)
    yield from _record(mine, claim, report, collected)
    return True


def _finish(job: Job, mine: AttemptKeys, claim: Claim, report: ExitReport, *, abort: bool) -> Steps[None]:
    workflow = job.spec.workflow
    yield Show(workflow=workflow, status=JobStatus.UPLOADING, host=claim.host, attempt=mine, mine=True)
    while True:
        collected = yield Collect(claim, workflow, mine, partial=not report.succeeded, keep=not abort)
        if collected is not None:
            yield from _record(mine, claim, report, collected)
            return
        if (yield from _is_over(job, mine, claim)):
            return
        yield Pause(PATIENCE)


def _record(mine: AttemptKeys, claim: Claim, report: ExitReport, collected: Collected | str) -> Steps[None]:
    """Commit what was collected and record the end; then the host may forget the attempt."""
    if report.vanished:
        yield from record_gone(mine, claim)
    if isinstance(collected, Collected) and report.succeeded:
        status = yield from _commit(mine, claim, report, collected)
        yield from _end(mine, claim, report, status=status)
    else:
        reason = report.reason
        if isinstance(collected, str):
            reason = collected if report.succeeded else f"{reason}; what it left could not be kept: {collected}"
        yield from _end(mine, claim, report, status=end_without_result(report), reason=reason)
    yield Release(claim)


def _commit(mine: AttemptKeys, claim: Claim, report: ExitReport, collected: Collected) -> Steps[AttemptEnd]:
    """Create the result -> the status of this attempt: only one attempt of a generation is ever the result.

    The body follows from claim, report and manifest alone, so that two owners of one attempt write the same.
    """
    result = Result(
        nonce=claim.nonce,
        attempt=mine.number,
        manifest=collected.manifest,
        digest=collected.digest,
        run=claim.run,
        name=claim.run_name,
        host=claim.host,
        started=report.started,
        ended=report.ended,
        log_lost=report.log_lost,
    )
    won = yield from create(mine.generation.result, pack(result))
    return AttemptEnd.SUCCEEDED if won else AttemptEnd.SUPERSEDED


def _end(
    mine: AttemptKeys, claim: Claim, report: ExitReport, *, status: AttemptEnd, reason: str | None = None
) -> Steps[None]:
    end = End(
        nonce=claim.nonce,
        status=status,
        reason=reason if reason is not None else report.reason,
        code=report.code,
        signal=report.signal,
        host=claim.host,
        started=report.started,
        ended=report.ended,
        log_lost=report.log_lost,
    )
    yield from create(mine.end, pack(end))
