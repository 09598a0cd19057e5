"""What the SSH tests share: hosts opened for one test, and small programs for the bootstrap to run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from dstack.adapters.ssh.connections import SshHosts
from dstack.adapters.ssh.stream import SshTransport
from dstack.model import Host, HostName

ECHO = b"""
import sys
source, sink = sys.stdin.buffer, sys.stdout.buffer
sink.write(b"READY")
sink.flush()
while True:
    data = source.read1(1 << 20)
    if not data:
        break
    sink.write(data)
    sink.flush()
"""
"""Says READY, then gives back every byte until its input ends."""


@dataclass(slots=True, kw_only=True)
class Seen:
    """What one dialling showed besides its result."""

    notes: list[str] = field(default_factory=list)


def named(name: str) -> Host:
    """A host of which the inventory says nothing: all comes from ~/.ssh/config."""
    return Host(name=HostName(name))


def hosts(inventory: Mapping[str, Host] | None = None, *, seen: Seen | None = None) -> SshHosts:
    return SshHosts(inventory or {}, note=(seen or Seen()).notes.append)


async def begin(transport: SshTransport, source: bytes = ECHO) -> None:
    """Hand the bootstrap its source, framed as the runner's is."""
    await transport.write(b"%d\n" % len(source) + source)


async def read_to(transport: SshTransport, mark: bytes, *, seconds: float = 20) -> bytes:
    """Everything up to and with `mark`; AssertionError at the end of the stream or after `seconds`."""
    data = b""
    async with asyncio.timeout(seconds):
        while mark not in data:
            piece = await transport.read(65536)
            assert piece, f"ended before {mark!r}: {data!r} {transport.stderr_tail()!r}"
            data += piece
    return data


async def read_all(transport: SshTransport, *, seconds: float = 60) -> bytes:
    pieces = []
    async with asyncio.timeout(seconds):
        while piece := await transport.read(1 << 20):
            pieces.append(piece)
    return b"".join(pieces)


async def greet(name: str, seen: Seen | None = None) -> bytes:
    """Connect to a host of ~/.ssh/config, run ECHO there, and give back one echoed word."""
    async with hosts(seen=seen) as opened:
        transport = await opened.open_transport(named(name))
        await begin(transport)
        await read_to(transport, b"READY")
        await transport.write(b"word")
        answer = await read_to(transport, b"word")
        await transport.close()
        return answer
