"""A run in the care of this process: how the wait for its end is left."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dstack.session.attendance import _until_set, in_loop


@contextmanager
def interruption(events: list[str], *, after: float | None) -> Iterator[asyncio.Event]:
    event = asyncio.Event()
    if after is not None:
        asyncio.get_running_loop().call_later(after, event.set)
    events.append("entered")
    try:
        yield event
    finally:
        events.append("left")


@pytest.mark.parametrize(("work_s", "after", "result"), [(0.0, None, "final"), (60.0, 0.01, None)])
def test_the_work_ends_or_is_left_and_no_task_stays(work_s: float, after: float | None, result: str | None) -> None:
    events: list[str] = []

    async def work() -> str:
        await asyncio.sleep(work_s)
        return "final"

    async def beside() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            events.append("beside ended")

    async def play() -> str | None:
        tasks = asyncio.create_task(work()), asyncio.create_task(beside())
        await asyncio.sleep(0)
        found = await _until_set(tasks[0], tasks[1:], interruption(events, after=after))  # type: ignore[arg-type]
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return found  # type: ignore[return-value]

    assert asyncio.run(play()) == result
    assert events == ["entered", "left", "beside ended"]


def test_the_error_of_the_work_comes_out() -> None:
    async def play() -> None:
        async def work() -> None:
            raise ValueError("the bucket is away")

        task = asyncio.create_task(work())
        await _until_set(task, [], interruption([], after=None))  # type: ignore[arg-type]

    with pytest.raises(ValueError, match="away"):
        asyncio.run(play())


def test_a_line_from_a_thread_is_shown_by_the_loop_and_dropped_once_that_is_closed() -> None:
    shown: list[str] = []

    async def play() -> object:
        show = in_loop(shown.append)
        await asyncio.to_thread(show, "in time")
        await asyncio.sleep(0)
        return show

    late = asyncio.run(play())
    assert callable(late)
    late("too late")
    assert shown == ["in time"]
