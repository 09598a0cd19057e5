"""Hands runs to the coordinator on a host: starts its front there by the one constant command, and asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from dstack import wire
from dstack.adapters.coordinator_library import Library
from dstack.adapters.coordinator_zipapp import ENTRY, coordinator_zipapp
from dstack.adapters.runner_channel import Channel
from dstack.adapters.runner_client import DEFAULT_DIRECTORY, START_DEADLINE
from dstack.adapters.runner_start import Program, opening, start_runner
from dstack.adapters.runner_zipapp import bootstrap_source
from dstack.core.codec import plain
from dstack.core.handover import HandOver
from dstack.errors import DstackError
from dstack.ports import Transport


async def look_at(transport: Transport, given: HandOver, library: Library | None) -> str:
    """As whom a host sees the bucket of a hand-over, in words; starts no coordinator.

    Raises as `hand_over` does; closes the transport.
    """
    answer = await _talk(transport, given, library, wire.LOOK)
    return opening(answer.get("who"), 200)


async def hand_over(transport: Transport, given: HandOver, library: Library | None) -> str:
    """Give one run to the coordinator of its bucket on a host, which is started unless it is awake -> its id.

    `library` goes along when the host lacks it. Raises HostUnreachableError, and HostError with what the host lacks:
    kind `bucket` (runner_channel.RefusedError) when the bucket does not show the run from there. Closes the transport.
    """
    answer = await _talk(transport, given, library, wire.HAND)
    return str(answer.get("coordinator"))


async def _talk(transport: Transport, given: HandOver, library: Library | None, op: str) -> dict[str, Any]:
    body, sha256 = coordinator_zipapp()
    program = Program(
        bootstrap=bootstrap_source(),
        zipapp=body,
        sha256=sha256,
        directory=given.host.dir or DEFAULT_DIRECTORY,
        entry=ENTRY,
    )
    channel: Channel | None = None
    try:
        first = await start_runner(transport, program, deadline=START_DEADLINE)
        channel = Channel(transport, first)
        fields: dict[str, Any] = {"handover": plain(given)}
        if library is not None:
            fields["library"] = library.sha256
            await _bring(channel, library)
        return await channel.ask(op, fields)
    finally:
        with suppress(DstackError):
            await (transport if channel is None else channel).close()


async def _bring(channel: Channel, library: Library) -> None:
    there = await channel.ask(wire.LIBRARY_HAVE, {"sha256": library.sha256})
    if there.get("have") is not True:
        await channel.upload(wire.LIBRARY_PUSH, {"sha256": library.sha256}, _pieces(library.body))


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), wire.CHUNK):
        yield body[start : start + wire.CHUNK]
