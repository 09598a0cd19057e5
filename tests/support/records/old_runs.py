"""Final runs of somebody else's, as records, for buckets that hold many."""

from __future__ import annotations

from dstack.core.fingerprint import fingerprint, ingredients
from dstack.core.format.keys import ProjectKeys
from dstack.core.format.records import Final, Outcome, RunRecord, pack
from dstack.model import JobStatus, RunId, RunName, RunPlan, RunStatus, Snapshot
from tests.support.records.specs import spec


def old_run(index: int) -> dict[str, bytes]:
    """A run of bob's, long ago, as far as lists and `ps` look at it."""
    name, when = RunName(f"old-run-{index}"), index / 1000
    keys = ProjectKeys.of("project").run(RunId(f"{10**13 - index - 1:013d}-{index:010d}"))
    job = spec("train", variables={"n": str(index)})
    record = RunRecord(
        nonce="n",
        id=keys.run,
        name=name,
        user="bob",
        machine="desk",
        submitted=when,
        workflow=job.workflow,
        plan=RunPlan(jobs=(job,)),
        snapshot=Snapshot(commit="c", tree="t", prefix="", head=None, branch=None, remote=None, dirty=False),
    )
    outcome = Outcome(
        nonce="n",
        workflow=job.workflow,
        status=JobStatus.SUCCEEDED,
        fingerprint=fingerprint(ingredients(job, {})),
        generation=1,
        attempt=1,
    )
    final = Final(
        nonce="n",
        run=name,
        user="bob",
        machine="desk",
        submitted=when,
        workflow=job.workflow,
        status=RunStatus.SUCCEEDED,
        ended=when,
        jobs=(outcome,),
    )
    return {keys.record: pack(record), keys.final: pack(final)}
