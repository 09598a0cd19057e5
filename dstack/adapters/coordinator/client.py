"""Talks to the coordinator on a host: starts the server by the constant command, probes the bucket, hands runs over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

from dstack import wire
from dstack.adapters.coordinator.wheel import Library
from dstack.adapters.coordinator.zipapp import ENTRY_MODULE, coordinator_zipapp
from dstack.adapters.runner.channel import Channel
from dstack.adapters.runner.client import DEFAULT_DIRECTORY, START_TIMEOUT_S
from dstack.adapters.runner.start import Program, first_words, start_runner
from dstack.adapters.runner.zipapp import bootstrap_source
from dstack.core.format.codec import plain
from dstack.core.handover import HandOver
from dstack.errors import DstackError
from dstack.ports import Transport
from dstack.wire.coordinator_messages import HandRequest, LibraryHaveRequest, LibraryPushRequest, LookRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class HostBucketReport:
    """A host's view of a bucket: `who` reads the bucket, in words, and whether a dstack has `used` the bucket.

    `trouble` is why the account cannot write to the bucket or, with `who` "", cannot read; "" without trouble.
    """

    who: str
    used: bool
    trouble: str = ""


class CoordinatorClient:
    """The server of the coordinator on one host, behind a transport; belongs to one event loop.

    Methods raise HostUnreachableError, and HostError for a lack of the host: RefusedError of kind `bucket` when the
    host does not see the bucket, of kind `run` when the run's record there differs.
    """

    def __init__(self, transport: Transport, channel: Channel) -> None:
        self._transport = transport
        self._channel = channel

    @classmethod
    async def open(cls, transport: Transport, directory: str | None) -> CoordinatorClient:
        """Start the front; `directory` is where all of dstack lies on the host. The transport is closed on failure."""
        body, sha256 = coordinator_zipapp()
        program = Program(
            bootstrap=bootstrap_source(),
            zipapp=body,
            sha256=sha256,
            directory=directory or DEFAULT_DIRECTORY,
            entry=ENTRY_MODULE,
        )
        try:
            started = await start_runner(transport, program, deadline=START_TIMEOUT_S)
        except BaseException:
            with suppress(DstackError):
                # No coordinator client exists yet that could close the transport later.
                await transport.close()
            raise
        return cls(transport, Channel(transport, started.first))

    async def look(self, hand: HandOver, library: Library | None) -> HostBucketReport:
        """How the host sees the bucket of a hand-over; starts no coordinator."""
        await self._bring(library)
        answer = await self._channel.ask(LookRequest(handover=plain(hand), library=_name(library)))
        return HostBucketReport(
            who=first_words(answer.who, 200), used=answer.used, trouble=first_words(answer.trouble, 1000)
        )

    async def hand(self, hand: HandOver, library: Library | None) -> str:
        """Give a run to the coordinator of the bucket, started unless awake -> the coordinator's id.

        `library` goes along when the host lacks a copy.
        """
        await self._bring(library)
        answer = await self._channel.ask(HandRequest(handover=plain(hand), library=_name(library)))
        return first_words(answer.coordinator, 200)

    async def close(self) -> None:
        """End the front; a coordinator goes on. Never raises for a lost connection."""
        with suppress(DstackError):
            await self._channel.close()

    async def _bring(self, library: Library | None) -> None:
        """Send the library unless the host has a copy."""
        if library is None:
            return
        there = await self._channel.ask(LibraryHaveRequest(sha256=library.sha256))
        if not there.have:
            await self._channel.upload(LibraryPushRequest(sha256=library.sha256), _pieces(library.body))


def _name(library: Library | None) -> str | None:
    return None if library is None else library.sha256


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), wire.CHUNK_BYTES):
        yield body[start : start + wire.CHUNK_BYTES]
