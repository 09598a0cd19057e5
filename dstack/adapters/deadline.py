"""A time limit for one piece of work, on every Python of the laptop and of hosts."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def within(seconds: float | None, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; raises TimeoutError without a result after `seconds` (None: no limit).

    Late work, and work of a cancelled caller, is cancelled and has ended before this returns.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        late = not task.done()
        if late:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    if late and task.cancelled():
        raise TimeoutError
    return task.result()
