"""The forecast of a run, by reading only: for `dstack run --dry-run`, and to decide whether a host is needed at all."""

from __future__ import annotations

from dataclasses import dataclass

from dstack.app.effects.catalogue import Read
from dstack.app.effects.steps import take_now
from dstack.app.protocol import generations, settlement
from dstack.app.protocol.bucket_performer import BlockingReader
from dstack.app.protocol.jobs import Job, latest_of
from dstack.app.queries.run_views import waits_text
from dstack.core.fingerprint import fingerprint, ingredients
from dstack.core.format.keys import JobKeys, ProjectKeys
from dstack.core.format.records import Result, RunRecord, unpack
from dstack.core.reuse import fresh_reason
from dstack.errors import DamagedObjectError
from dstack.model import Fingerprint, JobSpec, RunName, Word, WorkflowName
from dstack.ports import Bucket


class Forecast(Word):
    """The forecast for a job, as far as known before anything is done."""

    REUSED = "reused"
    RUNS = "runs"
    JOINS = "joins"
    WAITS = "waits"
    """Its inputs run first, and their content decides whether the job runs; or only a silent host might run the job."""
    NOWHERE = "nowhere"
    """No host can run the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobForecast:
    """One job of a plan. `fingerprint` is "" while inputs are open; `reason` is for people."""

    workflow: WorkflowName
    fate: Forecast
    reason: str
    fingerprint: str = ""
    reused_from: RunName | None = None
    host: str = ""


class RememberingReader(BlockingReader):
    """The objects read in one look ahead. A present object never changes; an absent object may come."""

    def __init__(self, bucket: Bucket) -> None:
        super().__init__(bucket)
        self._found: dict[str, bytes] = {}

    async def read(self, effect: Read, /) -> bytes | None:
        return self.get(effect.key)

    def get(self, key: str) -> bytes | None:
        """The bytes of an object, None when it is absent."""
        body = self._found.get(key)
        if body is None:
            body = self._bucket.get(key)
            if body is not None:
                self._found[key] = body
        return body


def forecast_run(store: Bucket, keys: ProjectKeys, run: RunRecord) -> tuple[JobForecast, ...]:
    """The forecast of every job of a run not yet recorded, in the order of the plan. Writes nothing."""
    bucket = RememberingReader(store)
    digests: dict[WorkflowName, str] = {}
    found = []
    for spec in run.plan.jobs:
        open_inputs = [dependency.workflow for dependency in spec.inputs if dependency.workflow not in digests]
        if open_inputs:
            found.append(JobForecast(workflow=spec.workflow, fate=Forecast.WAITS, reason=waits_text(open_inputs)))
            continue
        inputs = {str(dependency.workflow): digests[dependency.workflow] for dependency in spec.inputs}
        print_ = fingerprint(ingredients(spec, inputs))
        foresight, digest = _forecast_job(bucket, keys, run, spec=spec, fingerprint_=print_)
        if digest is not None:
            digests[spec.workflow] = digest
        found.append(foresight)
    return tuple(found)


def _forecast_job(
    bucket: RememberingReader, keys: ProjectKeys, run: RunRecord, *, spec: JobSpec, fingerprint_: Fingerprint
) -> tuple[JobForecast, str | None]:
    fresh = fresh_reason(run, spec)
    if fresh:
        return JobForecast(workflow=spec.workflow, fate=Forecast.RUNS, reason=fresh, fingerprint=fingerprint_), None
    job = Job(run=run, spec=spec, fingerprint=fingerprint_, project=keys)
    stands = take_now(generations.current_state(job), bucket)
    # Without a result the run would open the generation above the closed ones.
    generation = job.generation(stands.result or stands.closed + 1)
    result, damage = _result(bucket, generation) if stands.result else (None, "")
    if result is not None:
        foresight = JobForecast(
            workflow=spec.workflow,
            fate=Forecast.REUSED,
            reason=f"same code, variables and inputs as in {result.name}",
            fingerprint=fingerprint_,
            reused_from=result.name,
            host=result.host,
        )
        return foresight, result.digest
    _, live = take_now(latest_of(generation), bucket)
    if live is not None:
        reason = f"{live.claim.run_name} of {live.owner.user} is running it"
        return (
            JobForecast(
                workflow=spec.workflow,
                fate=Forecast.JOINS,
                reason=reason,
                fingerprint=fingerprint_,
                host=live.claim.host,
            ),
            None,
        )
    reason = damage or (generations.PRUNED_REASON if stands.closed else "no result yet")
    return JobForecast(workflow=spec.workflow, fate=Forecast.RUNS, reason=reason, fingerprint=fingerprint_), None


def _result(bucket: RememberingReader, generation: JobKeys) -> tuple[Result | None, str]:
    """The reusable result of the job, or why there is none; "" where nothing is damaged."""
    body = bucket.get(generation.result)
    if body is None or bucket.get(generation.tomb) is not None:
        return None, ""
    try:
        result = unpack(Result, generation.result, body)
    except DamagedObjectError as error:
        return None, f"its result is damaged: {error}"
    whole = take_now(settlement.is_whole(generation.attempt(result.attempt), result), bucket)
    return (result, "") if whole else (None, "its result is damaged: not all that it names is there")
