"""Sends one pack of artifacts from a host to the bucket, by the create rule."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass

from dstack.app.effects.steps import Effect, take
from dstack.app.protocol.complete_lists import reaches_now
from dstack.app.protocol.create_if_absent import put_or_find
from dstack.app.transfer.byte_streams import Meter, feed
from dstack.app.transfer.threaded_bucket import ThreadedCreator
from dstack.core.artifacts import manifests
from dstack.core.artifacts.manifests import ChangedBytesError
from dstack.errors import HostError
from dstack.model import Entry, Nonce
from dstack.ports import Bucket, Put, RunnerPort

SEND_ATTEMPTS = 3
"""Times that a pack, of up to 1 GiB, is sent before the bucket counts as a bucket that gives no answer."""


class PackSender(ThreadedCreator):
    """Sends the pack of these `members`, each file verified, and counts the bytes once however often the pack is
    sent."""

    def __init__(self, bucket: Bucket, runner: RunnerPort, nonce: Nonce, *, members: Sequence[Entry], meter: Meter):
        super().__init__(bucket)
        self._runner = runner
        self._nonce = nonce
        self._pack = members[0].pack
        self._files = tuple(manifests.distinct_entries(members))
        self._size = manifests.pack_size(members)
        self._meter = meter
        self._counted = 0

    async def create(self, key: str) -> None:
        """Create the pack under `key`. Raises BucketError, HostUnreachableError, and HostError when the host says no or
        sends other bytes than its manifest says; then no pack was created."""
        await take(put_or_find(key, _SendPack(key), _FindPack(key), attempts=SEND_ATTEMPTS), self)
        # Not all of it was read where another collector was faster.
        self._meter.add(self._size - self._counted)

    async def send(self, key: str) -> Put:
        """Create the pack, if absent."""
        self._meter.add(-self._counted)
        self._counted = 0

        def create(chunks: Iterator[bytes]) -> Put:
            return self._bucket.create_from(key, manifests.verify_bytes(self._files, self._counting(chunks)))

        try:
            return await feed(self._runner.read_pack(self._nonce, self._pack), create)
        except ChangedBytesError as error:
            name = self._runner.name
            raise HostError(name, f"its artifacts changed on the way: {error}", hint="run it again") from None

    async def find(self, key: str) -> bool | None:
        """True where something of the pack is there, else None."""
        # By key: a list may lack a pack that came a moment ago, and a pack is never empty.
        return await asyncio.to_thread(reaches_now, self._bucket, key, 1) or None

    def _counting(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            yield chunk
            self._counted += len(chunk)
            self._meter.add(len(chunk))


@dataclass(frozen=True, slots=True)
class _SendPack(Effect[PackSender, Put]):
    key: str

    def perform(self, performer: PackSender, /) -> Awaitable[Put]:
        return performer.send(self.key)


@dataclass(frozen=True, slots=True)
class _FindPack(Effect[PackSender, bool | None]):
    key: str

    def perform(self, performer: PackSender, /) -> Awaitable[bool | None]:
        return performer.find(self.key)
