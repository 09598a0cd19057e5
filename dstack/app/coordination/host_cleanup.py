"""Attempts of earlier coordinators that lie on a host, and orphans that run there: an earlier coordinator was killed
before the host knew of the end, or did not reach the host. The next coordinator of the account cleans up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from dstack.app.coordination.late_results import bring_in_result
from dstack.app.coordination.orphans import end_orphan, find_orphans, is_awaited, record_orphan_gone
from dstack.app.hosts.fleet import ReachedHost
from dstack.app.protocol.lease import OVERDUE_S
from dstack.app.queries.lost_attempts import end_of
from dstack.core.format.key_parser import attempt_in
from dstack.core.format.keys import AttemptKeys, ProjectKeys
from dstack.core.format.records import Result, unpack
from dstack.core.lifecycle import AttemptEnd
from dstack.errors import BucketError, DstackError, HostError, HostUnreachableError
from dstack.model import Nonce, Spooled
from dstack.ports import Bucket, RunnerPort
from dstack.wire import ENDED, VANISHED

RELEASE_GRACE_S = OVERDUE_S
"""Seconds for the coordinator that has just recorded an end, to tell the host itself."""


class LeftoverAction(Enum):
    """The action on an attempt that lies on a host."""

    LEAVE = "leave it as it is"
    FORGET = "have the host forget it"
    FORGET_LOST = "record that nothing of it lives, and have the host forget it"
    BRING_IN = "bring in what it has left first"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """An attempt that lies on a host and is over, and the action on the attempt."""

    attempt: AttemptKeys
    nonce: Nonce
    rest: LeftoverAction


async def clean_up_host(reached: ReachedHost, bucket: Bucket, keys: ProjectKeys, *, say: Callable[[str], None]) -> int:
    """Have the host forget the attempts of this project that are over; returns how many.

    The artifacts of a lost attempt are brought into the bucket first, and `say` gets a line about each. Raises nothing:
    where a host or a bucket gives no answer, nothing is changed. An attempt without an end in the bucket is never
    forgotten, unless the generation was pruned.
    """
    forgotten, runner = 0, reached.runner
    try:
        await _end_orphans(runner, bucket, keys)
        over = await asyncio.to_thread(_over, bucket, keys, await runner.spool())
        if not over:
            return 0
        await asyncio.sleep(RELEASE_GRACE_S)
        # Asked again: the coordinators that recorded these ends may have released the attempts meanwhile.
        left = {each.nonce for each in await runner.spool()}
        for each in over:
            if each.nonce in left:
                forgotten += await _finish(reached, bucket, each, say)
    except DstackError:
        pass  # whoever needs the two next says so
    return forgotten


async def _finish(reached: ReachedHost, bucket: Bucket, over: Leftover, say: Callable[[str], None]) -> bool:
    """Whether all records of the attempt are in the bucket, and the host has forgotten the attempt. A failure of one
    attempt is said, and keeps no other waiting; raises HostUnreachableError."""
    what = "an attempt that is over could not be forgotten"
    try:
        if over.rest is LeftoverAction.BRING_IN:
            what = "what a lost attempt has left could not be brought in"
            done = await bring_in_result(reached, bucket, over.attempt, over.nonce)
            if done:
                say(done)
            return bool(done)
        if over.rest is LeftoverAction.FORGET_LOST:
            await asyncio.to_thread(record_orphan_gone, bucket, over.attempt, over.nonce)
        await reached.runner.release(over.nonce)
    # A lost connection ends the whole clean-up: no other attempt could be finished either.
    except HostUnreachableError:
        raise
    except DstackError as error:
        say(f"{what}: {error}" if isinstance(error, HostError) else f"{reached.host.name}: {what}: {error}")
        return False
    return True


async def _end_orphans(runner: RunnerPort, bucket: Bucket, keys: ProjectKeys) -> None:
    """End living attempts with a recorded end, unless a run waits for their results."""
    for orphan in await find_orphans(runner, bucket, keys):
        if not await asyncio.to_thread(is_awaited, bucket, keys, orphan.attempt):
            await end_orphan(runner, bucket, orphan)


def _over(bucket: Bucket, keys: ProjectKeys, spool: Iterable[Spooled]) -> list[Leftover]:
    found = []
    for each in spool:
        attempt, rest = attempt_in(keys, each.attempt), action_for(bucket, keys, each)
        if attempt is not None and rest is not LeftoverAction.LEAVE:
            found.append(Leftover(attempt=attempt, nonce=each.nonce, rest=rest))
    return found


def action_for(bucket: Bucket, keys: ProjectKeys, spooled: Spooled) -> LeftoverAction:
    """The action on this attempt, by the records. Blocking; raises BucketError."""
    attempt = attempt_in(keys, spooled.attempt)
    if attempt is None or spooled.state not in (ENDED, VANISHED):
        return LeftoverAction.LEAVE
    end = end_of(bucket, attempt)
    if end is None:
        return LeftoverAction.FORGET if _was_pruned(bucket, attempt) else LeftoverAction.LEAVE
    # Another bucket may have an attempt under the same key.
    if end.nonce != spooled.nonce:
        return LeftoverAction.LEAVE
    if end.status != AttemptEnd.LOST:
        return LeftoverAction.FORGET
    # Nothing can come any more of one that vanished; of one that ended a result may, unless there is one.
    if spooled.state == VANISHED:
        return LeftoverAction.FORGET_LOST
    body = bucket.get(attempt.generation.result)
    if body is None:
        return LeftoverAction.BRING_IN
    return LeftoverAction.FORGET_LOST if _is_result(attempt, body) else LeftoverAction.LEAVE


def _is_result(attempt: AttemptKeys, body: bytes) -> bool:
    """Whether this result stands. A damaged result stands for nothing, and nothing else can take its place."""
    try:
        unpack(Result, attempt.generation.result, body)
    except BucketError:
        return False
    return True


def _was_pruned(bucket: Bucket, attempt: AttemptKeys) -> bool:
    """Whether only the tomb is left of the attempt's generation: the claim stood before the attempt began."""
    return bucket.get(attempt.claim) is None and bucket.get(attempt.generation.tomb) is not None
