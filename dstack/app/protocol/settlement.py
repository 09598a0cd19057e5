"""One job of one run, to its outcome: reuse, join, adopt or claim; the same steps for every coordinator.

Any number of coordinators may take these steps for the same job at the same time, in the same run or in others. The
keys alone keep coordinators apart: `claim/<n>`, `owner/<k>`, `result` and the outcome are each created once. The choice
of the generation of a run is in `generations.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dstack.app.effects.answers import ForeignAttempt, HostUnreachable, Liveness, StartRefused
from dstack.app.effects.catalogue import (
    Alive,
    AskVerdict,
    BucketPerformer,
    BucketReader,
    HowSilent,
    NewNonce,
    ObjectCreator,
    ObjectReader,
    Pause,
    Performer,
    Read,
    Show,
)
from dstack.app.effects.steps import Steps, ask
from dstack.app.protocol import attempt_records, attempts, generations
from dstack.app.protocol.complete_lists import are_there
from dstack.app.protocol.create_if_absent import create, read_record
from dstack.app.protocol.jobs import Job, LiveAttempt, ends_of, latest_of, stop_of_job, stop_of_unwanted
from dstack.app.protocol.lease import SILENCE_S
from dstack.core import retry
from dstack.core.artifacts import manifests
from dstack.core.foreign_attempts import Sighting, describe, describe_elsewhere
from dstack.core.format.key_parser import takes_attempt
from dstack.core.format.keys import AttemptKeys, JobKeys
from dstack.core.format.records import Coordinator, End, Outcome, Owner, Result, Stop, Want, at_machine, pack, unpack
from dstack.core.lifecycle import RAN_ENDS, AttemptEnd, not_run_reason
from dstack.errors import DamagedObjectError
from dstack.model import JobStatus, WorkflowName

FIRST_POLL_S = 0.5
LONGEST_POLL_S = 5.0
"""Seconds between two looks at an attempt of another owner: FIRST_POLL_S at first, then ever more, up to this."""
STOP_GRACE_S = 5.0
"""Seconds for the owner of a stopped attempt to stop the job, before another coordinator does."""
UNREACHABLE_POLL_S = 2.0
"""Seconds between two tries of a host that does not answer."""
FOREIGN_POLL_S = 5.0
"""Seconds between two looks at an attempt of another account, which only that account can bring to its end."""
MAX_VOID_ATTEMPTS = 16
"""Attempts in a row that never started before the job is called failed."""
MAX_DAMAGED_GENERATIONS = 4
"""Generations in a row left because of damage before the job is called failed: a store may damage all of them."""


def settle(job: Job, me: Coordinator) -> Steps[Performer, Outcome]:
    """Bring the job to its outcome in this run and record the outcome; a recorded outcome is returned unchanged."""
    key = job.run_keys.job(job.spec.workflow)
    recorded = yield from ask(Read(key))
    if recorded is not None:
        return unpack(Outcome, key, recorded)
    outcome = yield from _to_the_end(job, me, (yield from generations.first_generation(job)))
    assert outcome is not None
    return (yield from conclude(job, outcome))


def make_again(
    job: Job, me: Coordinator, taken: Outcome, *, taker: WorkflowName, why: str
) -> Steps[Performer, Outcome | None]:
    """The replacement for an outcome of this run with damaged artifacts, as `why` says.

    Closes the generation, and makes the job again in the next shared generation, or takes the result of other runs
    there. The run's recorded outcome stays. `job` has `again` set. None as soon as the workflow `taker`, which needs
    the artifacts, has an outcome without them. Raises DamagedObjectError where the next generation is damaged as well.
    """
    yield from generations.close_generation(job, taken.generation, why)
    generation = yield from generations.shared_generation(job, taken.generation, f"its result was damaged: {why}")
    return (yield from _to_the_end(job, me, generation, taker=taker))


def _to_the_end(
    job: Job, me: Coordinator, generation: JobKeys, *, taker: WorkflowName | None = None
) -> Steps[Performer, Outcome | None]:
    """Look and act until there is an outcome, from one generation to the next where necessary; None as soon as the
    workflow `taker` has an outcome. Raises DamagedObjectError where no later generation can help."""
    damaged = 0
    while True:
        if taker is not None and (yield from ask(Read(job.run_keys.job(taker)))) is not None:
            return None
        try:
            found = yield from _step(job, me, generation)
        except DamagedObjectError as error:
            damaged += 1
            if damaged > MAX_DAMAGED_GENERATIONS or not _is_left_behind(generation, error.key):
                raise
            job = replace(job, above=generation.generation)
            found = yield from _above(job, generation, str(error))
        if isinstance(found, Outcome):
            return found
        if found is not None:
            generation = found


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDamage:
    """The reason why a job can never be done: the object `key` of the bucket is damaged."""

    key: str
    reason: str


def give_up(job: Job, loss: JobDamage) -> Steps[BucketPerformer, Outcome]:
    """Record that the job failed because of the damage; returns the outcome that counts.

    Where the record of the outcome itself is damaged, the returned outcome stands nowhere.
    """
    outcome = replace((yield from job.outcome(JobStatus.FAILED, reason=loss.reason)), damaged=loss.key)
    try:
        return (yield from conclude(job, outcome))
    except DamagedObjectError:
        return outcome


def _is_left_behind(keys: JobKeys, key: str) -> bool:
    """Whether the damage of `key` is left behind with the generation. The damage of a claim or an owner is not: the job
    may run still."""
    return key.startswith(keys.folder) and not takes_attempt(key)


def _above(job: Job, keys: JobKeys, why: str) -> Steps[BucketPerformer, JobKeys]:
    """The generation to go on with where this generation holds damaged objects."""
    if job.fresh:
        return (yield from generations.next_generation(job, keys))
    return (yield from generations.shared_generation(job, keys.generation, f"its result was damaged: {why}"))


def conclude(job: Job, outcome: Outcome) -> Steps[ObjectCreator, Outcome]:
    """Record the outcome; returns the outcome that was recorded first."""
    key = job.run_keys.job(job.spec.workflow)
    if (yield from create(key, pack(outcome))):
        return outcome
    return (yield from read_record(Outcome, key))


def _step(job: Job, me: Coordinator, keys: JobKeys) -> Steps[Performer, Outcome | JobKeys | None]:
    """One look at the job -> its outcome, the generation to go on with, or None to look again."""
    stop = yield from stop_of_job(job)
    found = yield from ask(Read(keys.result))
    result = unpack(Result, keys.result, found) if found is not None else None
    # A result of this run's own attempt counts in spite of a stop: the job had come to its end.
    if stop is not None and (result is None or result.run != job.run.id):
        return (yield from _stopped(job, me, keys, stop))
    want = yield from generations.record_want(job, keys, settled=result is not None)
    if want.left:
        return (yield from generations.next_generation(job, keys))
    if result is not None:
        return (yield from _reuse(job, keys, result))
    number, live = yield from latest_of(keys)
    if live is not None:
        yield from _beside(job, me, keys, live, want)
        return None
    ends = yield from ends_of(keys, want.ended, number)
    verdict = retry.after_attempts(tuple(end.status for end in ends), job.spec.retry, max_void=MAX_VOID_ATTEMPTS)
    # The last look before a claim: between the first look and the list of attempts a result may have come.
    if verdict is retry.NextStep.LOOK or (yield from ask(Read(keys.result))) is not None:
        return None  # an attempt succeeded since the first look: its result precedes its end
    if verdict is not retry.NextStep.CLAIM:
        # A stopped attempt was stopped for another run, and counts for nothing here.
        end = next(end for end in reversed(ends) if end.status != AttemptEnd.STOPPED)
        status = JobStatus.LOST if verdict is retry.NextStep.LOST else JobStatus.FAILED
        return (
            yield from job.outcome(
                status, reason=end.reason, keys=keys, attempt=number, host=end.host, times=(end.started, end.ended)
            )
        )
    return (yield from attempts.make_attempt(job, me, keys, number + 1))


def _stopped(job: Job, me: Coordinator, keys: JobKeys, stop: Stop) -> Steps[Performer, Outcome | None]:
    """The outcome of a stopped job, as soon as no attempt lives that only this run wanted."""
    number, live = yield from latest_of(keys)
    if live is not None and (yield from stop_of_unwanted(job, live.keys)) is not None:
        yield from _beside(job, me, keys, live, None)
        return None
    end = None if live is not None else (yield from _own_end(job, keys, number))
    if end is None:
        return (yield from job.outcome(JobStatus.STOPPED, reason=stop.reason))
    times = (end.started, end.ended)
    return (
        yield from job.outcome(
            JobStatus.STOPPED, reason=stop.reason, keys=keys, attempt=number, host=end.host, times=times
        )
    )


def _own_end(job: Job, keys: JobKeys, number: int) -> Steps[ObjectReader, End | None]:
    """The end of attempt `number` if this run waited for the attempt and the job ran: its log and artifacts are
    kept."""
    want = yield from ask(Read(keys.want(job.run.id)))
    if want is None or number <= unpack(Want, keys.want(job.run.id), want).ended:
        return None
    key = keys.attempt(number).end
    body = yield from ask(Read(key))
    end = unpack(End, key, body) if body is not None else None
    return end if end is not None and end.status in RAN_ENDS else None


def _reuse(job: Job, keys: JobKeys, result: Result) -> Steps[BucketPerformer, Outcome]:
    """The outcome of a job with this result; raises DamagedObjectError where named objects of the result are
    missing."""
    if not (yield from is_whole(keys.attempt(result.attempt), result)):
        raise DamagedObjectError(keys.result, f"not all is there that {keys.result} names")
    return (yield from outcome_of(job, keys, result))


def outcome_of(job: Job, keys: JobKeys, result: Result) -> Steps[BucketPerformer, Outcome]:
    """The outcome that the result of a generation gives to the job."""
    own = result.run == job.run.id
    return (
        yield from job.outcome(
            JobStatus.SUCCEEDED if own else JobStatus.REUSED,
            reason=result.log_lost,
            keys=keys,
            attempt=result.attempt,
            digest=result.digest,
            host=result.host,
            reused_from=None if own else result.name,
            times=(result.started, result.ended),
        )
    )


def is_whole(attempt: AttemptKeys, result: Result) -> Steps[BucketReader, bool]:
    """Whether all objects that the result names are there, as far as names, sizes and digests tell; no pack is read."""
    try:
        body = yield from ask(Read(attempt.manifest))
        if body is None:
            return False
        manifest = manifests.decode(attempt.manifest, body, sha256=result.manifest)
    except DamagedObjectError:
        return False
    if manifest.partial or manifests.content_digest(manifest) != result.digest:
        return False
    packs = manifests.uploads(manifest)
    sizes = {attempt.pack(name): manifests.pack_size(members) for name, members in packs.items()}
    return (yield from are_there(attempt.packs, sizes))


def _beside(job: Job, me: Coordinator, keys: JobKeys, live: LiveAttempt, want: Want | None) -> Steps[Performer, None]:
    """Wait beside the owner of an attempt that has not ended, or look after the attempt in the place of a dead
    owner."""
    if live.owner.id != me.id and not (yield from _outlive(job, live)):
        return
    # The host alone knows whether the job began, and an answer `refused` holds for ever: nothing begins later.
    verdict = yield from ask(AskVerdict(live.claim))
    if isinstance(verdict, ForeignAttempt):
        yield from _foreign(job, live, want, verdict)
        return
    if isinstance(verdict, HostUnreachable):
        yield from _unreachable(job, live, want)
        return
    if isinstance(verdict, StartRefused):
        yield from attempt_records.record_void(live.keys, live.claim)
        return
    if live.owner.id != me.id:
        owner = Owner(nonce=(yield from ask(NewNonce())), coordinator=me)
        if not (yield from create(live.keys.owner(live.adoptions + 1), pack(owner))):
            return
    yield from attempts.look_after(job, live.keys, live.claim)


def _outlive(job: Job, live: LiveAttempt) -> Steps[Performer, bool]:
    """Wait for as long as the attempt's owner lives -> True when the owner died, False when all is to be looked at
    again.

    An owner that lives and does not stop a stopped job (a frozen process holds its lock) counts as dead after
    STOP_GRACE_S seconds: two may stop one attempt, and both then write the same.
    """
    own = live.claim.run == job.run.id
    who = at_machine(live.owner.user, live.owner.machine)
    note = f"{who} looks after it" if own else f"joins {live.claim.run_name} of {who}"
    pause, late = FIRST_POLL_S, -1.0
    while True:
        if late >= STOP_GRACE_S or (yield from ask(Alive(live.owner, live.claim))) is Liveness.DEAD:
            return True
        yield from ask(
            Show(
                workflow=job.spec.workflow, status=JobStatus.RUNNING, host=live.claim.host, note=note, attempt=live.keys
            )
        )
        yield from ask(Pause(pause))
        waited, pause = pause, min(LONGEST_POLL_S, pause * 1.25)
        if (yield from ask(Read(live.keys.end))) is not None:
            return False
        if (yield from stop_of_job(job)) is None:
            continue
        if (yield from stop_of_unwanted(job, live.keys)) is None:
            return False  # the others go on with it, and this run is stopped
        late, pause = (0.0 if late < 0 else late + waited), FIRST_POLL_S


def _foreign(job: Job, live: LiveAttempt, want: Want | None, verdict: ForeignAttempt) -> Steps[Performer, None]:
    """Wait for an attempt of another account on a host that answers: only that account can bring the attempt to its
    end, so the run goes on waiting, whatever is seen of the attempt. Where the machine was started again since, nothing
    of the attempt lives."""
    may_lose = want is not None and verdict.sighting is Sighting.RESTARTED
    if may_lose and (yield from attempts.may_try_again(job, live.keys, want)):
        # First of the two: a lost attempt without `gone` counts as an attempt that may live.
        yield from attempt_records.record_gone(live.keys, live.claim)
        yield from attempt_records.record_lost(live.keys, live.claim, f"{live.claim.host} was restarted")
        return
    claim = live.claim
    note = describe(verdict.sighting, claim.host, claim.account, f"dstack attach {job.run.name}")
    if verdict.own_account:
        note = describe_elsewhere(verdict.sighting, claim.host, f"dstack lost {job.run.name}")
    yield from ask(
        Show(workflow=job.spec.workflow, status=JobStatus.RUNNING, host=live.claim.host, note=note, attempt=live.keys)
    )
    yield from ask(Pause(FOREIGN_POLL_S))


def _unreachable(job: Job, live: LiveAttempt, want: Want | None) -> Steps[Performer, None]:
    """Wait for an attempt on a host that does not answer. The state of the job is unknown: another attempt is made only
    where `retry` says so."""
    silence = yield from ask(HowSilent(live.claim, live.owner))
    # An owner on the very host that fell silent: its silence is then the host's own. One that left its runs, or is
    # known for sure to have died, says nothing of its host.
    by_owner = silence.owner and live.owner.boot_id == live.claim.boot_id
    long_enough = by_owner or silence.seconds >= SILENCE_S
    if long_enough and (yield from attempts.may_try_again(job, live.keys, want)):
        yield from attempt_records.record_lost(
            live.keys, live.claim, f"{live.claim.host} unreachable since {silence.since}"
        )
        return
    yield from ask(
        Show(
            workflow=job.spec.workflow,
            status=JobStatus.RUNNING,
            host=live.claim.host,
            note=f"{live.claim.host} unreachable since {silence.since}",
            attempt=live.keys,
        )
    )
    yield from ask(Pause(UNREACHABLE_POLL_S))


def skip(job: Job, culprit: Outcome) -> Steps[BucketPerformer, Outcome]:
    """Record that the job does not run because the input `culprit` did not succeed."""
    reason = not_run_reason(f"{culprit.workflow} {culprit.status}")
    outcome = yield from job.outcome(JobStatus.STOPPED, reason=reason)
    return (yield from conclude(job, outcome))
