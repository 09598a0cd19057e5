"""How the contract of `RunnerPort` reaches a host, and what it brings there."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Protocol

from dstack.adapters.git.snapshots import GitCode
from dstack.adapters.process_identity import new_nonce
from dstack.adapters.runner.client import RunnerClient
from dstack.adapters.runner.local import LocalTransport, open_local
from dstack.adapters.runner.zipapp import bootstrap_source, runner_zipapp
from dstack.model import Demand, ExitReport, Host, HostName, Nonce, Snapshot
from dstack.ports import CodeSource, Transport
from dstack.wire.job_messages import JobOrder
from tests.support.runners.orders import job_order

PATIENCE = 240.0


class Opener(Protocol):
    """One host of a test's own. `directory` is the folder of dstack there."""

    directory: str

    async def open(self) -> Transport: ...

    async def cut(self, transport: Transport) -> None:
        """Lose the connection at once, as a killed process or a pulled cable does."""
        ...

    def peak(self, transport: Transport) -> int | None:
        """The most bytes of memory that the runner ever had, None where the test cannot see it."""
        ...


class LocalOpener:
    """This machine, without SSH."""

    def __init__(self, folder: Path) -> None:
        self.directory = str(folder)
        self._host = Host(name=HostName("here"), local=True)

    async def open(self) -> LocalTransport:
        return await open_local(self._host, os.environ.get("DSTACK_HOST_PYTHON", sys.executable))

    async def cut(self, transport: Transport) -> None:
        assert isinstance(transport, LocalTransport)
        os.kill(transport.pid, signal.SIGKILL)

    def peak(self, transport: Transport) -> int | None:
        assert isinstance(transport, LocalTransport)
        return peak_of(transport.pid)


def peak_of(pid: int | str) -> int:
    """The high water mark of a process's memory in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


class Repository:
    """A real git repository with a real snapshot; counts the bundles that were asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "project"
        self.folder.mkdir()
        self.git("init", "-q")
        self.write("hello.txt", b"hello\n")
        self.write("bulk.bin", os.urandom(300_000))
        self.code = GitCode(self.folder, folder / "snapshots.git")
        self.bundles = 0

    def git(self, *arguments: str) -> None:
        subprocess.run(["git", "-C", str(self.folder), *arguments], check=True, capture_output=True)

    def write(self, name: str, data: bytes) -> None:
        (self.folder / name).write_bytes(data)

    def bundle(self, snapshot: Snapshot, basis: Sequence[str]) -> Iterator[bytes]:
        self.bundles += 1
        return self.code.bundle(snapshot, basis)

    def has(self, snapshot: Snapshot) -> bool:
        return self.code.has(snapshot)

    def known(self) -> Sequence[str]:
        return self.code.known()


class Bench:
    """Clients of one host, and attempts on it. An async context: closes every client at the end."""

    def __init__(self, opener: Opener, project: Repository) -> None:
        self.opener = opener
        self.project = project
        self._source: CodeSource = project
        self._clients: list[RunnerClient] = []
        self._transports: dict[RunnerClient, Transport] = {}

    async def __aenter__(self) -> Bench:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            await client.close()

    async def client(self) -> RunnerClient:
        kept: list[Transport] = []

        async def open_transport() -> Transport:
            kept.append(await self.opener.open())
            return kept[0]

        client = RunnerClient(
            "box",
            open_transport,
            zipapp=runner_zipapp(),
            bootstrap=bootstrap_source(),
            directory=self.opener.directory,
        )
        self._clients.append(client)
        await client.connect()
        self._transports[client] = kept[0]
        return client

    async def cut(self, client: RunnerClient) -> None:
        await self.opener.cut(self._transports[client])

    def peak(self, client: RunnerClient) -> int | None:
        return self.opener.peak(self._transports[client])

    async def held(self, client: RunnerClient, *, slots: int = 4) -> Nonce:
        nonce = new_nonce()
        await client.hold(nonce, Demand(slots=slots))
        return nonce

    async def prepared(self, client: RunnerClient, script: str, *, slots: int = 4, **fields: Any) -> Nonce:
        snapshot = self.project.code.snapshot()
        nonce = await self.held(client, slots=slots)
        await client.push_code("proj", snapshot, self._source)
        await client.prepare(order_of(snapshot, script, nonce=nonce, **fields))
        return nonce

    async def started(self, client: RunnerClient, script: str, **fields: Any) -> Nonce:
        nonce = await self.prepared(client, script, **fields)
        assert await client.go(nonce, {}) > 0
        return nonce

    async def finished(self, client: RunnerClient, script: str, **fields: Any) -> tuple[Nonce, bytes, ExitReport]:
        """Run to the end: nonce, whole log, exit report."""
        nonce = await self.started(client, script, **fields)
        log = await gathered(client.follow(nonce, 0))
        return nonce, log, await client.wait(nonce)


def order_of(snapshot: Snapshot, script: str, **fields: Any) -> JobOrder:
    return job_order(commit=snapshot.commit, tree=snapshot.tree, script=script, **fields)


async def gathered(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def first_of(client: RunnerClient, nonce: Nonce, text: bytes) -> bytes:
    """The log up to where it holds `text`, as soon as it does."""
    heard = b""
    async with aclosing(client.follow(nonce, 0)) as chunks:
        async for chunk in chunks:
            heard += chunk
            if text in heard:
                return heard
    raise AssertionError(f"{text!r} never came; the log is {heard!r}")


async def until(question: Callable[[], Awaitable[bool]], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not await question():
        assert time.monotonic() < deadline, f"never happened: {what}"
        await asyncio.sleep(0.02)


def play(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, PATIENCE))
