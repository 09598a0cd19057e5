"""A job as the steps see jobs: run, fingerprint, keys, and the runs that still want the job."""

from __future__ import annotations

from dataclasses import dataclass

from dstack.app.effects.catalogue import BucketPerformer, BucketReader, NewNonce, ObjectReader, Read
from dstack.app.effects.steps import Steps, ask
from dstack.app.protocol.complete_lists import last_number
from dstack.app.protocol.create_if_absent import read_record
from dstack.app.protocol.generation_users import users_of
from dstack.core.format.identifiers import is_run_id
from dstack.core.format.keys import AttemptKeys, JobKeys, ProjectKeys, RunKeys
from dstack.core.format.records import Claim, Coordinator, End, Outcome, Owner, RunRecord, Stop, Want, unpack
from dstack.errors import DamagedObjectError
from dstack.model import Fingerprint, JobSpec, JobStatus, RunId, RunName, WorkflowName


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One workflow of a run with settled inputs. `fresh` says why no earlier result counts; "" when a result does.

    The generations up to `above` hold damaged objects, and do not count for the run. `again`: the run has an outcome of
    the job already, with damaged artifacts, and needs the same artifacts anew.
    """

    run: RunRecord
    spec: JobSpec
    fingerprint: Fingerprint
    project: ProjectKeys
    fresh: str = ""
    above: int = 0
    again: bool = False

    @property
    def run_keys(self) -> RunKeys:
        return self.project.run(self.run.id)

    def generation(self, number: int) -> JobKeys:
        return self.project.job(self.fingerprint, number)

    def outcome(
        self,
        status: JobStatus,
        *,
        reason: str = "",
        keys: JobKeys | None = None,
        attempt: int = 0,
        digest: str = "",
        host: str = "",
        reused_from: RunName | None = None,
        times: tuple[float, float] = (0.0, 0.0),
    ) -> Steps[BucketPerformer, Outcome]:
        """An outcome of this job in its run, with a nonce of its own."""
        return Outcome(
            nonce=(yield from ask(NewNonce())),
            workflow=self.spec.workflow,
            status=status,
            reason=reason,
            fingerprint=self.fingerprint,
            generation=keys.generation if keys else 0,
            attempt=attempt,
            digest=digest,
            host=host,
            reused_from=reused_from,
            started=times[0],
            ended=times[1],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveAttempt:
    """An attempt that has not ended, and the coordinator that looks after the attempt."""

    keys: AttemptKeys
    claim: Claim
    owner: Coordinator
    adoptions: int


def job_title(run: RunName, workflow: WorkflowName) -> str:
    """The name of a job of a run for people on its host, for example in the queue."""
    return f"{run}/{workflow}"


def stop_of(keys: RunKeys, workflow: WorkflowName) -> Steps[ObjectReader, Stop | None]:
    """The stop request that covers this workflow of a run, None without any; a damaged request counts as well."""
    for key in (keys.stop(workflow), keys.stop(None)):
        try:
            body = yield from ask(Read(key))
            if body is not None:
                return unpack(Stop, key, body)
        except DamagedObjectError as error:
            return Stop(nonce="", user="", reason=f"somebody asked for it, and nobody can say who: {error}")
    return None


def stop_of_job(job: Job) -> Steps[ObjectReader, Stop | None]:
    """The stop request that covers this job, None without any."""
    return (yield from stop_of(job.run_keys, job.spec.workflow))


def stop_of_unwanted(job: Job, attempt: AttemptKeys) -> Steps[BucketReader, Stop | None]:
    """The stop request that ends the attempt; None where there is no request, or another run waits for the job without
    any."""
    stop = yield from stop_of_job(job)
    if stop is None:
        return None
    for run, key in (yield from _wants(attempt, job.run.id)).items():
        if run != job.run.id and (yield from _still_wants(job.project, run, key)):
            return None
    return stop


def is_wanted(project: ProjectKeys, attempt: AttemptKeys, *runs: RunId) -> Steps[BucketReader, bool]:
    """Whether any run still waits for the result of the attempt; the wants of `runs` are asked for by key."""
    for run, key in (yield from _wants(attempt, *runs)).items():
        if (yield from _still_wants(project, run, key)):
            return True
    return False


def _wants(attempt: AttemptKeys, *runs: RunId) -> Steps[BucketReader, dict[RunId, str]]:
    """The keys of the wants of all runs that ever came to the attempt's generation, by run; always with `runs` and the
    claimant."""
    # The claimant without a look into the register: earlier versions did not register, and a late list lacks wants.
    claimant = (yield from read_record(Claim, attempt.claim)).run
    users = yield from users_of(attempt.generation, attempt.generation.wants)
    found = {RunId(name) for name in users if is_run_id(name)} | {claimant, *runs}
    return {run: attempt.generation.want(run) for run in sorted(found)}


def _still_wants(project: ProjectKeys, run: RunId, key: str) -> Steps[ObjectReader, bool]:
    keys = project.run(run)
    try:
        body = yield from ask(Read(key))
        want = unpack(Want, key, body) if body is not None else None
    except DamagedObjectError:
        return not (yield from _is_over(keys))  # nobody can say for which workflow
    if want is None or want.left:
        return False
    if (yield from ask(Read(keys.final if want.again else keys.job(want.workflow)))) is not None:
        return False
    # A run that was pruned has no outcomes any more; its record went before them.
    if (yield from ask(Read(keys.record))) is None:
        return False
    return (yield from stop_of(keys, want.workflow)) is None


def _is_over(run: RunKeys) -> Steps[ObjectReader, bool]:
    return (yield from ask(Read(run.final))) is not None or (yield from ask(Read(run.record))) is None


def ends_of(keys: JobKeys, after: int, last: int) -> Steps[ObjectReader, tuple[End, ...]]:
    """The ends of the attempts after number `after` and up to `last`, oldest first; open attempts are left out."""
    ends = []
    for number in range(after + 1, last + 1):
        attempt = keys.attempt(number)
        body = yield from ask(Read(attempt.end))
        if body is not None:
            ends.append(unpack(End, attempt.end, body))
    return tuple(ends)


def latest_of(keys: JobKeys) -> Steps[BucketReader, tuple[int, LiveAttempt | None]]:
    """The number of the last attempt of a generation (0 without any), and the attempt itself unless ended."""
    attempt = yield from last_attempt(keys)
    if attempt is None:
        return 0, None
    return attempt.number, (yield from live_attempt(attempt))


def last_attempt(keys: JobKeys) -> Steps[BucketReader, AttemptKeys | None]:
    """The attempt of the last claim of a generation; None without any claim."""
    number = yield from last_number(keys.claims, lambda number: keys.attempt(number).claim)
    return keys.attempt(number) if number else None


def live_attempt(attempt: AttemptKeys) -> Steps[BucketReader, LiveAttempt | None]:
    """A claimed attempt with its claim and owner; None when the attempt has ended."""
    if (yield from ask(Read(attempt.end))) is not None:
        return None
    claim = yield from read_record(Claim, attempt.claim)
    owner, adoptions = yield from owner_of(attempt, claim)
    return LiveAttempt(keys=attempt, claim=claim, owner=owner, adoptions=adoptions)


def owner_of(attempt: AttemptKeys, claim: Claim) -> Steps[BucketReader, tuple[Coordinator, int]]:
    """The last coordinator that adopted the attempt, else the claimant, and the number of adoptions."""
    adoptions = yield from last_number(attempt.owners, attempt.owner)
    if not adoptions:
        return claim.coordinator, 0
    return (yield from read_record(Owner, attempt.owner(adoptions))).coordinator, adoptions
