"""A runner that is frozen is told from one whose request takes long."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from dstack.app.hosts import fleet
from dstack.app.hosts.fleet import Link
from dstack.app.hosts.frozen_runners import ask_living
from dstack.errors import HostUnreachableError
from dstack.model import Host, HostName
from dstack.ports import RunnerPort


class Runner:
    """A runner of the test's: `frozen` it answers nothing, else `work` takes so many seconds."""

    def __init__(self, *, frozen: bool, seconds: float = 0.0) -> None:
        self.frozen = frozen
        self.seconds = seconds
        self.asked = 0
        self.closed = False

    async def facts(self) -> None:
        return None

    async def pulse(self, patience: float) -> None:
        if self.frozen:
            await asyncio.sleep(patience)
            raise HostUnreachableError("gpu-1", "no sign of life")

    async def work(self) -> str:
        self.asked += 1
        await (asyncio.Event().wait() if self.frozen else asyncio.sleep(self.seconds))
        return "done"

    async def close(self) -> None:
        self.closed = True


def link_to(*runners: Runner) -> Link:
    waiting = list(runners)

    async def open_runner(host: Host) -> RunnerPort:
        return cast(RunnerPort, waiting.pop(0))

    return Link(Host(name=HostName("gpu-1")), open_runner)


def asked(link: Link) -> str:
    async def scene() -> str:
        try:
            return await ask_living(link, lambda runner: cast(Any, runner).work(), patience=0.05)
        finally:
            await link.close()

    return asyncio.run(scene())


def test_a_frozen_runner_is_given_up_and_a_fresh_one_asked() -> None:
    frozen, fresh = Runner(frozen=True), Runner(frozen=False)
    assert asked(link_to(frozen, fresh)) == "done"
    assert (frozen.asked, fresh.asked) == (1, 1)
    assert frozen.closed


def test_a_runner_that_lives_may_take_longer_than_the_patience() -> None:
    slow, never = Runner(frozen=False, seconds=0.5), Runner(frozen=False)
    assert asked(link_to(slow, never)) == "done"
    assert (slow.asked, never.asked) == (1, 0)


def test_a_host_whose_runners_all_freeze_is_out_of_reach() -> None:
    with pytest.raises(HostUnreachableError, match="gives no sign of life"):
        asked(link_to(Runner(frozen=True), Runner(frozen=True)))


def test_a_runner_that_falls_silent_is_given_up_whoever_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "RUNNER_LOOK_S", 0.01)
    monkeypatch.setattr(fleet, "RUNNER_MUTE_S", 0.05)

    async def scene() -> None:
        frozen, fresh = Runner(frozen=True), Runner(frozen=False)
        link = link_to(frozen, fresh)
        assert cast(Any, (await link.reach()).runner) is frozen
        async with asyncio.timeout(10):
            while not frozen.closed:
                await asyncio.sleep(0.01)
        assert cast(Any, (await link.reach()).runner) is fresh
        await link.close()

    asyncio.run(scene())
