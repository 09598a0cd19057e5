"""A runner of this machine that ended while it was being opened."""

from __future__ import annotations

import asyncio
import sys

from dstack.adapters.runner.local import LocalTransport


def test_a_child_whose_pipe_is_closed_already_is_a_transport_that_has_ended() -> None:
    async def scene() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "import time; time.sleep(60)",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        process.kill()
        process.stdin.close()
        await process.stdin.wait_closed()
        transport = LocalTransport("local", process)
        assert await transport.read(1) == b""
        await transport.close()
        assert transport.exit_status() == 128 + 9

    asyncio.run(asyncio.wait_for(scene(), 30))
