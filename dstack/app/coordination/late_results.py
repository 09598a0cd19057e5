"""Late results: what attempts that were called lost have left on a host where nobody looks after them any more.

An attempt may come to its end, be called lost because its host was started again or nobody could reach it, and then
lose its coordinator. Its work may be that of days: the next coordinator of its account brings it into the bucket.
"""

from __future__ import annotations

import asyncio
from typing import Any

from dstack.app.hosts.fleet import Reached
from dstack.app.protocol import attempts
from dstack.app.protocol import effects as fx
from dstack.app.protocol.effects import take
from dstack.app.transfer.artifacts import collect_to_commit
from dstack.app.transfer.attempt_watch import carry_log
from dstack.core.format.keys import AttemptKeys
from dstack.core.format.records import Claim, unpack
from dstack.core.sightings import belongs, is_other_machine
from dstack.errors import HostUnreachableError
from dstack.model import Nonce, WorkflowName
from dstack.ports import Bucket, RunnerPort

UNNAMED = WorkflowName("")
"""Nothing of a late result is shown under the name of its workflow."""


async def bring_in_result(reached: Reached, bucket: Bucket, attempt: AttemptKeys, nonce: Nonce) -> str:
    """Bring what an ended attempt that was called lost has left into the bucket, and have the host forget the attempt.

    Safe beside other coordinators that do the same: all of them write the same bytes. Where the generation has no
    result yet, the one of a succeeded attempt becomes it. Returns what was done, for people; "" where the attempt was
    not claimed on this host in this spool, or the connection was lost: then nothing was forgotten. Raises BucketError,
    and HostError when the host says no.
    """
    runner, facts = reached.runner, reached.facts
    body = await asyncio.to_thread(bucket.get, attempt.claim)
    claim = unpack(Claim, attempt.claim, body) if body is not None else None
    if claim is None or claim.nonce != nonce or not belongs(claim, facts) or is_other_machine(claim, facts):
        return ""
    report = await runner.wait(nonce)
    performer = _Performer(runner, bucket)
    if not await take(attempts.bring_in(attempt, claim, report, UNNAMED), performer.perform):
        return ""
    what = "the result" if report.succeeded else "what is left"
    return f"{runner.name}: brought in {what} of attempt {attempt.number} of {claim.run_name}, which was called lost"


class _Performer:
    """The effects of `attempts.bring_in`, on the host where the attempt lies."""

    def __init__(self, runner: RunnerPort, bucket: Bucket) -> None:
        self._runner = runner
        self._bucket = bucket

    async def perform(self, effect: fx.Effect) -> Any:
        match effect:
            case fx.PutNew(key, body):
                return await asyncio.to_thread(self._bucket.create, key, body)
            case fx.Read(key):
                return await asyncio.to_thread(self._bucket.get, key)
            case fx.Pause(seconds):
                return await asyncio.sleep(seconds)
            case fx.Collect():
                return await self._collect(effect)
            case fx.Release(claim):
                return await self._runner.release(Nonce(claim.nonce))
        raise AssertionError(f"a late result does not need {effect!r}")

    async def _collect(self, effect: fx.Collect) -> fx.Collected | None:
        nonce = Nonce(effect.claim.nonce)

        try:
            await carry_log(
                self._bucket,
                effect.attempt,
                lambda offset: self._runner.follow(nonce, offset),
                show=lambda *_: None,
            )
            return await collect_to_commit(self._runner, self._bucket, effect.attempt, nonce, partial=effect.partial)
        except HostUnreachableError:
            return None
