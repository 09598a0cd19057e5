"""A client that is closed while others use it: each of them is told, and none of them is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from dstack import wire
from dstack.adapters.runner.client import RunnerClient
from dstack.errors import HostUnreachableError
from dstack.model import Demand, Nonce, Snapshot
from tests.support.runners.scripted import FarSide, against

N = Nonce("0123456789abcdef")
SNAPSHOT = Snapshot(commit="c" * 40, tree="t" * 40, prefix="", head=None, branch=None, remote=None, dirty=False)


class Source:
    """The laptop's code store, which is never asked here."""

    def known(self) -> list[str]:
        return []

    def bundle(self, snapshot: Snapshot, basis: object) -> object:
        raise AssertionError

    def has(self, snapshot: Snapshot) -> bool:
        return True


def test_a_push_that_several_wait_for_fails_for_all_of_them() -> None:
    asked = asyncio.Event()

    async def script(far: FarSide) -> None:
        await far.start()
        await far.request(wire.CODE_BASIS)
        asked.set()

    async def scene(client: RunnerClient) -> None:
        await client.connect()
        pushes = [asyncio.create_task(client.push_code("p", SNAPSHOT, Source())) for _ in range(2)]  # type: ignore[arg-type]
        await asked.wait()
        await client.close()
        for push in pushes:
            with pytest.raises(HostUnreachableError, match="closed"):
                await push

    against(script, scene)


def test_a_request_that_is_still_being_written_fails() -> None:
    ready = asyncio.Event()

    async def script(far: FarSide) -> None:
        await far.start()
        far.stuck = True
        ready.set()

    async def scene(client: RunnerClient) -> None:
        await client.connect()
        await ready.wait()
        holds = [asyncio.create_task(client.hold(N, Demand(slots=1))) for _ in range(3)]
        await asyncio.sleep(0)
        await client.close()
        for hold in holds:
            with pytest.raises(HostUnreachableError):
                await hold

    against(script, scene)
