"""A host inside the test's process: the runner's own functions on real folders, without a wire between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dstack.app.transfer.byte_streams import feed
from dstack.core.artifacts.manifests import entry_from_wire
from dstack.errors import HostError
from dstack.model import Manifest, Nonce
from dstack.runner.store import artifacts, blob_store, intake
from dstack.wire import Refusal
from dstack.wire.job_messages import JobOrder

NONCE = Nonce("0123456789abcdef")


class InsideRunner:
    """The part of `RunnerPort` that artifacts need. `sent` counts the bytes of blobs that came to the host."""

    def __init__(self, folder: Path, *, paths: Sequence[str] = ("out",)) -> None:
        self.name = "inside"
        self.root = str(folder)
        self.spool = folder / "spool" / NONCE
        self.work = self.spool / "work"
        self.work.mkdir(parents=True)
        self.paths = list(paths)
        self.sent = 0
        self.packs_read: list[str] = []
        self.damage: Callable[[bytes], bytes] = bytes
        self.ended(code=0)

    def ended(self, **report: Any) -> None:
        (self.spool / "exit.json").write_text(json.dumps(report))

    async def manifest(self, nonce: Nonce) -> Manifest:
        found = await self._call(artifacts.write_manifest, self.root, str(self.spool), str(self.work), self.paths)
        lines = (self.spool / "manifest.jsonl").read_bytes().splitlines()
        return Manifest(entries=tuple(entry_from_wire(json.loads(line)) for line in lines), partial=found.partial)

    async def read_pack(self, nonce: Nonce, pack: str) -> AsyncIterator[bytes]:
        self.packs_read.append(pack)
        pieces = artifacts.read_pack(self.root, str(self.spool), str(self.work), pack)
        while (piece := await self._call(next, pieces, None)) is not None:
            yield self.damage(piece)

    async def missing_blobs(self, digests: Sequence[str]) -> Sequence[str]:
        missing: Sequence[str] = await self._call(blob_store.missing, self.root, digests)
        return missing

    async def push_blobs(self, blobs: Sequence[tuple[str, int]], chunks: AsyncIterator[bytes]) -> None:
        def receive(pieces: Iterator[bytes]) -> None:
            intake.receive(self.root, blobs, self._counted(pieces))

        try:
            await feed(chunks, receive)
        except Refusal as refusal:
            raise HostError(self.name, refusal.message, hint=refusal.hint) from None

    def _counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.sent += len(piece)
            yield piece

    async def prepare(self, order: JobOrder) -> None:
        # What goes over the wire is one message of at most 1 MiB.
        assert len(json.dumps(order.inputs)) < 1 << 20
        await self._call(blob_store.stage, self.root, str(self.work), order.inputs)

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return await asyncio.to_thread(function, *arguments)
        except Refusal as refusal:
            raise HostError(self.name, refusal.message, hint=refusal.hint) from None
