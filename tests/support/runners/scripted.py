"""A host that follows a script: a real transport in memory, whose far side is a coroutine of the test's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from dstack import wire
from dstack.adapters.runner.client import RunnerClient
from dstack.errors import HostUnreachableError

BOOTSTRAP = b"print('the bootstrap')\n"
ZIPAPP = (b"PK the runner", "a" * 64)
HELLO: dict[str, Any] = {
    "wire": wire.WIRE_VERSION,
    "boot_id": "b",
    "hostname": "h",
    "user": "u",
    "uid": 1000,
    "python": "3.9.2",
    "platform": "linux-x86_64",
    "cpus": 4,
    "memory": 1 << 34,
    "gpus": [{"name": "A100", "memory": 40 << 30}],
    "git": "2.30",
    "docker": False,
    "disk_free": 1 << 40,
    "dir": "/home/u/.dstack",
}
LIMIT = 1 << 20


class FarSide:
    """What the script of a test works with: the coordinator's bytes, and its own."""

    def __init__(self) -> None:
        self.incoming = bytearray()
        self.outgoing = bytearray()
        self.ended = False
        self.lost = False
        self.stuck = False
        self.closed = False
        self.status: int | None = None
        self.stderr = ""
        self._changed = asyncio.Condition()
        self._frames = wire.FrameReader()
        self._ready: list[wire.Frame] = []

    async def change(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def until(self, question: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(question)

    async def say(self, data: bytes) -> None:
        self.outgoing += data
        await self.change()

    async def end(self, status: int | None = None) -> None:
        self.ended, self.status = True, status
        await self.change()

    async def lose(self) -> None:
        self.lost = True
        await self.change()

    async def lose_after_read(self) -> None:
        """Lose the connection once the coordinator has read all that was said."""
        await self.until(lambda: not self.outgoing)
        await self.lose()

    async def take(self, length: int) -> bytes:
        await self.until(lambda: len(self.incoming) >= length)
        data = bytes(self.incoming[:length])
        del self.incoming[:length]
        await self.change()
        return data

    async def line(self) -> bytes:
        await self.until(lambda: b"\n" in self.incoming)
        return await self.take(self.incoming.index(b"\n") + 1)

    async def header(self) -> dict[str, Any]:
        """Read what starts the bootstrap, checking its source; the header."""
        assert await self.take(int(await self.line())) == BOOTSTRAP
        header: dict[str, Any] = json.loads(await self.line())
        return header

    async def start(self, **hello: Any) -> None:
        """Be a bootstrap that has everything, and a runner that says hello."""
        header = await self.header()
        await self.say(f"\n{header['sentinel']}{json.dumps({'ready': True})}\n".encode())
        await self.ok(await self.request(wire.HELLO), {**HELLO, **hello})

    async def frame(self) -> wire.Frame:
        while not self._ready:
            await self.until(lambda: bool(self.incoming))
            self._ready += self._frames.feed(await self.take(len(self.incoming)))
        return self._ready.pop(0)

    async def request(self, op: str) -> dict[str, Any]:
        """The next frame, which must be this request."""
        frame = await self.frame()
        assert frame.kind == wire.MESSAGE
        message = wire.unpack_message(frame.payload)
        assert message["op"] == op, message
        return message

    async def ok(self, request: dict[str, Any], answer: dict[str, Any]) -> None:
        await self.say(wire.pack_message({"id": request["id"], "ok": answer}))

    async def data(self, request: dict[str, Any], data: bytes) -> None:
        await self.say(wire.pack_data(request["id"], data))


class ScriptedTransport:
    """A `Transport` to a `FarSide`."""

    host = "box"

    def __init__(self, far: FarSide) -> None:
        self._far = far

    async def read(self, limit: int) -> bytes:
        far = self._far
        await far.until(lambda: bool(far.outgoing) or far.ended or far.lost or far.closed)
        if far.lost or far.closed:
            raise HostUnreachableError(self.host, "the connection was lost")
        data = bytes(far.outgoing[:limit])
        del far.outgoing[: len(data)]
        await far.change()
        return data

    async def write(self, data: bytes) -> None:
        far = self._far
        await far.until(lambda: far.lost or far.ended or not far.stuck)
        if far.lost or far.ended:
            raise HostUnreachableError(self.host, "the connection was lost")
        # In two steps with a pause between, so that a cancelled write would tear a frame in two.
        far.incoming += data[: len(data) // 2]
        await asyncio.sleep(0)
        far.incoming += data[len(data) // 2 :]
        await far.change()

    async def close(self) -> None:
        self._far.closed = True
        await self._far.change()

    def stderr_tail(self) -> str:
        return self._far.stderr

    def exit_status(self) -> int | None:
        return self._far.status


def against(script: Callable[[FarSide], Awaitable[None]], scene: Callable[[RunnerClient], Awaitable[None]]) -> FarSide:
    """Play a scene with a client whose host follows `script`; returns the far side as it was left."""

    async def play() -> FarSide:
        far = FarSide()

        async def open_transport() -> ScriptedTransport:
            return ScriptedTransport(far)

        client = RunnerClient("box", open_transport, zipapp=ZIPAPP, bootstrap=BOOTSTRAP)
        acting = asyncio.ensure_future(script(far))
        playing = asyncio.ensure_future(scene(client))
        try:
            await asyncio.wait({acting, playing}, return_when=asyncio.FIRST_COMPLETED)
            if acting.done():
                acting.result()  # a script that failed is the reason, not what the client made of it
            await playing
        finally:
            await client.close()
            for task in (acting, playing):
                task.cancel()
            await asyncio.gather(acting, playing, return_exceptions=True)
        return far

    return asyncio.run(asyncio.wait_for(play(), 60))
