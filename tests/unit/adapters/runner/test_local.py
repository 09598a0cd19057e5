"""This machine as a host: the transport to a child process."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from dstack.adapters.runner.client import RunnerClient
from dstack.adapters.runner.local import LOCAL_CLOSE_TIMEOUT_S, LocalTransport, open_local
from dstack.adapters.runner.zipapp import bootstrap_source, runner_zipapp
from dstack.errors import HostError, HostUnreachableError
from dstack.model import Host, HostName

HERE = Host(name=HostName("here"), local=True)


async def started(source: bytes) -> LocalTransport:
    """A child that runs `source` in place of the bootstrap."""
    transport = await open_local(HERE, sys.executable)
    await transport.write(b"%d\n" % len(source) + source)
    return transport


async def heard(transport: LocalTransport) -> bytes:
    data = b""
    while chunk := await transport.read(1000):
        data += chunk
    return data


async def flood(transport: LocalTransport) -> None:
    while True:
        await transport.write(b"x" * 100_000)


def play(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 60))


def test_output_status_and_the_end_of_stderr_are_told() -> None:
    async def scene() -> None:
        transport = await started(
            b"import sys; print('out', flush=True); sys.stderr.write('e' * 9000 + '!'); sys.exit(3)"
        )
        assert await heard(transport) == b"out\n"
        await transport.close()
        assert transport.exit_status() == 3
        assert transport.stderr_tail() == "e" * 4095 + "!"

    play(scene())


def test_the_child_is_in_a_session_of_its_own() -> None:
    async def scene() -> None:
        transport = await started(b"import os; print(os.getsid(0), flush=True)")
        assert int(await heard(transport)) == transport.pid != os.getsid(0)
        await transport.close()

    play(scene())


def test_writing_to_a_child_that_ended_is_unreachable() -> None:
    async def scene() -> None:
        transport = await started(b"raise SystemExit(0)")
        await heard(transport)
        with pytest.raises(HostUnreachableError, match="here: the runner ended"):
            await flood(transport)
        await transport.close()

    play(scene())


def test_close_kills_a_child_that_does_not_end_and_leaves_none_behind() -> None:
    async def scene() -> None:
        transport = await started(b"import time\nprint('up', flush=True)\nwhile True: time.sleep(1)")
        assert await transport.read(100) == b"up\n"
        await transport.close()
        assert transport.exit_status() == 128 + 9
        assert not Path(f"/proc/{transport.pid}").exists()

    assert LOCAL_CLOSE_TIMEOUT_S < 30
    play(scene())


def test_close_ends_a_child_that_still_writes() -> None:
    source = b"import os,sys\nsys.stdin.buffer.read()\nfor _ in range(300): os.write(1, b'x' * 100000)\n"

    async def scene() -> None:
        transport = await started(source)
        await transport.close()
        await transport.close()
        assert transport.exit_status() == 0

    play(scene())


def test_a_python_that_is_not_there_is_named() -> None:
    async def scene() -> None:
        with pytest.raises(HostError, match="here: /nowhere/python cannot be started"):
            await open_local(HERE, "/nowhere/python")

    play(scene())


def test_another_program_than_python_is_told_by_the_client() -> None:
    async def scene() -> None:
        client = RunnerClient(
            "here", lambda: open_local(HERE, "/bin/false"), zipapp=runner_zipapp(), bootstrap=bootstrap_source()
        )
        with pytest.raises(HostError, match=r"ended before the runner started \(exit status 1"):
            await client.connect()

    play(scene())
