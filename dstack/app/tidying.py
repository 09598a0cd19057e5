"""Attempts that lie on a host although all of them is in the bucket, and orphans that run there: whoever should have
told the host was killed just then, or did not reach it. The next coordinator of the account does.
"""

from __future__ import annotations

import asyncio

from dstack.app.lease import LATE
from dstack.app.orphans import end_of, end_orphan, find_orphans, is_awaited
from dstack.core.keys import ProjectKeys
from dstack.errors import DstackError
from dstack.model import Spooled
from dstack.ports import Bucket, RunnerPort
from dstack.wire import ENDED, VANISHED

GRACE = LATE
"""Seconds that whoever has just recorded an end is given to tell the host itself."""


async def tidy(runner: RunnerPort, bucket: Bucket, keys: ProjectKeys) -> int:
    """Have the host forget the attempts of this project that are over; returns how many.

    Raises nothing: a host or a bucket that gives no answer is left as it is. An attempt whose end is not in the bucket
    is never forgotten, nor one that was called lost and may still be the first to come to a result.
    """
    forgotten = 0
    try:
        await _end_orphans(runner, bucket, keys)
        over = [each.nonce for each in await runner.spool() if await asyncio.to_thread(_is_over, bucket, keys, each)]
        if not over:
            return 0
        await asyncio.sleep(GRACE)
        left = {each.nonce for each in await runner.spool()}
        for nonce in over:
            if nonce in left:
                await runner.release(nonce)
                forgotten += 1
    except DstackError:
        pass  # whoever needs the two next says so
    return forgotten


async def _end_orphans(runner: RunnerPort, bucket: Bucket, keys: ProjectKeys) -> None:
    """End what lives of attempts that the records have ended, unless a run waits for what it makes."""
    for orphan in await find_orphans(runner, bucket, keys):
        if not await asyncio.to_thread(is_awaited, bucket, keys, orphan.attempt):
            await end_orphan(runner, bucket, orphan)


def _is_over(bucket: Bucket, keys: ProjectKeys, spooled: Spooled) -> bool:
    attempt = keys.attempt_in(spooled.attempt)
    if attempt is None or spooled.state not in (ENDED, VANISHED):
        return False
    end = end_of(bucket, attempt)
    if end is None or end.nonce != spooled.nonce:
        return False
    # Nothing can come any more of one that vanished; of one that ended a result may, unless there is one.
    return end.status != "lost" or spooled.state == VANISHED or bucket.get(attempt.result) is not None
