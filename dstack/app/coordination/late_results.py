"""Late results: artifacts of lost attempts, on a host without a coordinator that looks after the attempts.

An attempt may come to an end, be called lost because the host was started again or could not be reached, and then lose
the coordinator. The work may be the work of days: the next coordinator of the account brings the artifacts into the
bucket.
"""

from __future__ import annotations

import asyncio

from dstack.app.effects.answers import CollectAnswer, NotCollected
from dstack.app.effects.catalogue import Collect, Release
from dstack.app.effects.steps import take
from dstack.app.hosts.fleet import ReachedHost
from dstack.app.protocol.attempt_records import bring_in
from dstack.app.transfer.artifacts import collect_artifacts
from dstack.app.transfer.attempt_watch import carry_log
from dstack.app.transfer.threaded_bucket import ThreadedCreator
from dstack.core.foreign_attempts import belongs, is_other_machine
from dstack.core.format.keys import AttemptKeys
from dstack.core.format.records import Claim, unpack
from dstack.errors import HostUnreachableError
from dstack.model import Nonce, WorkflowName
from dstack.ports import Bucket, RunnerPort

NO_WORKFLOW = WorkflowName("")
"""Late results are shown under no workflow."""


async def bring_in_result(reached: ReachedHost, bucket: Bucket, attempt: AttemptKeys, nonce: Nonce) -> str:
    """Bring the artifacts of an ended, lost attempt into the bucket, and have the host forget the attempt.

    Safe beside other coordinators that do the same: all of them write the same bytes. Where the generation has no
    result yet, the result of a succeeded attempt becomes the result of the generation. Returns a line for people; ""
    where the attempt was not claimed on this host in this spool, or the connection was lost: then nothing was
    forgotten. Raises BucketError, and HostError when the host says no.
    """
    runner, facts = reached.runner, reached.facts
    body = await asyncio.to_thread(bucket.get, attempt.claim)
    claim = unpack(Claim, attempt.claim, body) if body is not None else None
    # Any account can put a nonce into its own spool: only the spool in which the attempt was claimed counts.
    if claim is None or claim.nonce != nonce or not belongs(claim, facts) or is_other_machine(claim, facts):
        return ""
    report = await runner.wait(nonce)
    if not await take(bring_in(attempt, claim, report, NO_WORKFLOW), _Collector(runner, bucket)):
        return ""
    what = "the result" if report.succeeded else "what is left"
    return f"{runner.name}: brought in {what} of attempt {attempt.number} of {claim.run_name}, which was called lost"


class _Collector(ThreadedCreator):
    """An `AttemptCollector` on the host where the attempt lies."""

    def __init__(self, runner: RunnerPort, bucket: Bucket) -> None:
        super().__init__(bucket)
        self._runner = runner

    async def collect(self, effect: Collect, /) -> CollectAnswer:
        nonce = Nonce(effect.claim.nonce)
        try:
            await carry_log(
                self._bucket,
                effect.attempt,
                lambda offset: self._runner.follow(nonce, offset),
                show=lambda *_: None,
            )
            return await collect_artifacts(self._runner, self._bucket, effect.attempt, nonce, partial=effect.partial)
        except HostUnreachableError:
            return NotCollected()

    async def release(self, effect: Release, /) -> None:
        await self._runner.release(Nonce(effect.claim.nonce))
