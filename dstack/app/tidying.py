"""Attempts that lie on a host although nobody looks after them any more, and orphans that run there: whoever should
have told the host was killed just then, or did not reach it. The next coordinator of the account does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum

from dstack.app.fleet import Reached
from dstack.app.late_results import bring_in_result
from dstack.app.lease import LATE
from dstack.app.orphans import end_of, end_orphan, find_orphans, is_awaited
from dstack.core.keys import AttemptKeys, ProjectKeys
from dstack.errors import DstackError
from dstack.model import Nonce, Spooled
from dstack.ports import Bucket, RunnerPort
from dstack.wire import ENDED, VANISHED

GRACE = LATE
"""Seconds that whoever has just recorded an end is given to tell the host itself."""


class Rest(Enum):
    """What is to be done with an attempt that lies on a host."""

    LEAVE = "leave it as it is"
    FORGET = "have the host forget it"
    BRING_IN = "bring in what it has left first"


async def tidy(reached: Reached, bucket: Bucket, keys: ProjectKeys, *, say: Callable[[str], None]) -> int:
    """Have the host forget the attempts of this project that are over; returns how many.

    What an attempt that was called lost has left is brought into the bucket first; `say` is told of that. Raises
    nothing: a host or a bucket that gives no answer is left as it is. An attempt whose end is not in the bucket is
    never forgotten, unless its generation was pruned.
    """
    forgotten, runner = 0, reached.runner
    try:
        await _end_orphans(runner, bucket, keys)
        rests = {each: await asyncio.to_thread(rest_of, bucket, keys, each) for each in await runner.spool()}
        over = [each for each, rest in rests.items() if rest is not Rest.LEAVE]
        if not over:
            return 0
        await asyncio.sleep(GRACE)
        left = {each.nonce for each in await runner.spool()}
        for each in over:
            attempt = keys.attempt_in(each.attempt)
            if each.nonce not in left:
                continue
            if rests[each] is Rest.FORGET or attempt is None:
                await runner.release(each.nonce)
                forgotten += 1
            else:
                forgotten += await _bring_in(reached, bucket, attempt, each.nonce, say)
    except DstackError:
        pass  # whoever needs the two next says so
    return forgotten


async def _bring_in(
    reached: Reached, bucket: Bucket, attempt: AttemptKeys, nonce: Nonce, say: Callable[[str], None]
) -> bool:
    """Whether all of it is in the bucket, and the host has forgotten it."""
    try:
        done = await bring_in_result(reached, bucket, attempt, nonce)
    except DstackError as error:
        say(f"{reached.host.name}: what a lost attempt has left could not be brought in: {error}")
        return False
    if done:
        say(done)
    return bool(done)


async def _end_orphans(runner: RunnerPort, bucket: Bucket, keys: ProjectKeys) -> None:
    """End what lives of attempts that the records have ended, unless a run waits for what it makes."""
    for orphan in await find_orphans(runner, bucket, keys):
        if not await asyncio.to_thread(is_awaited, bucket, keys, orphan.attempt):
            await end_orphan(runner, bucket, orphan)


def rest_of(bucket: Bucket, keys: ProjectKeys, spooled: Spooled) -> Rest:
    """What is to be done with this attempt, by the records. Blocking; raises BucketError."""
    attempt = keys.attempt_in(spooled.attempt)
    if attempt is None or spooled.state not in (ENDED, VANISHED):
        return Rest.LEAVE
    end = end_of(bucket, attempt)
    if end is None:
        return Rest.FORGET if _was_pruned(bucket, attempt) else Rest.LEAVE
    if end.nonce != spooled.nonce:
        return Rest.LEAVE
    # Nothing can come any more of one that vanished; of one that ended a result may, unless there is one.
    if end.status != "lost" or spooled.state == VANISHED or bucket.get(attempt.result) is not None:
        return Rest.FORGET
    return Rest.BRING_IN


def _was_pruned(bucket: Bucket, attempt: AttemptKeys) -> bool:
    """Whether nothing but its tomb is left of the attempt's generation: the claim stood before the attempt began."""
    return bucket.get(attempt.claim) is None and bucket.get(attempt.tomb) is not None
