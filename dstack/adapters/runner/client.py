"""One host as a coordinator uses it: `RunnerPort` in frames over a transport. docs/format.md §2 is normative."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any

from dstack import wire
from dstack.adapters.deadline import within
from dstack.adapters.runner import answers
from dstack.adapters.runner.answers import AttemptStatus, Listing
from dstack.adapters.runner.channel import QUICK, Channel
from dstack.adapters.runner.start import Program, start_runner
from dstack.errors import DstackError, HostUnreachableError
from dstack.model import Demand, ExitReport, Gpu, HostFacts, HostQueue, Manifest, Nonce, Snapshot, Spooled
from dstack.ports import CodeSource, OpenTransport

START_DEADLINE = 60.0
"""Seconds from the first byte to a runner that is ready, on a slow line and after a slow login shell."""
RELEASE_DEADLINE = 600.0
"""Seconds for removing a work tree, which may be large and on a slow disk."""
GRACE = 10.0
"""Seconds between TERM and KILL."""
BATCH = 8192
"""Digests in one message: half a megabyte."""
DEFAULT_DIRECTORY = "~/.dstack"


class RunnerClient:
    """A `RunnerPort`. Connects at first use, or by `connect`; belongs to one event loop.

    Once its connection is lost every method raises HostUnreachableError for ever: open another one, which costs a
    start of python3 on the host. Methods may be called concurrently, and none waits for another's bytes.
    """

    def __init__(
        self,
        name: str,
        open_transport: OpenTransport,
        *,
        zipapp: tuple[bytes, str],
        bootstrap: bytes,
        directory: str | None = None,
    ) -> None:
        """`zipapp` is the runner and its sha256 in hex; `directory` is where all of dstack lies on the host."""
        self.name = name
        self._open_transport = open_transport
        self._program = Program(
            bootstrap=bootstrap, zipapp=zipapp[0], sha256=zipapp[1], directory=directory or DEFAULT_DIRECTORY
        )
        self.closed: tuple[str, ...] = ()
        """Folders of dstack's on the host that were open to other accounts when the runner started, and are closed."""
        self._connecting = asyncio.Lock()
        self._open: Channel | None = None
        self._first_facts: HostFacts | None = None
        self._pushes: dict[tuple[str, str], asyncio.Task[int]] = {}

    async def connect(self) -> None:
        """Start the runner unless it was; raises HostUnreachableError, or HostError with what the host lacks."""
        await self._channel()

    async def facts(self) -> HostFacts:
        channel = await self._channel()
        if self._first_facts is not None:
            facts, self._first_facts = self._first_facts, None
            return facts
        return answers.facts(self.name, await channel.ask(wire.HELLO, {}))

    async def pulse(self, patience: float) -> None:
        channel = await self._channel()
        try:
            # No request has this number: nothing is cancelled, and there is an answer at once.
            await within(patience, channel.ask(wire.CANCEL, {"request": 0}, deadline=None))
        except TimeoutError:
            raise HostUnreachableError(
                self.name,
                f"the runner gave no sign of life for {patience:.0f} s",
                hint="it is frozen, or a disk of the host hangs; the job, if it runs, goes on",
            ) from None

    # -- bringing things to the host -----------------------------------------------------------------------------

    async def push_code(self, project: str, snapshot: Snapshot, source: CodeSource) -> int:
        """Bring a snapshot to the host; returns the bytes sent, 0 when it has it or another call is bringing it."""
        key = (project, snapshot.commit)
        running = self._pushes.get(key)
        if running is not None:
            await self._shared(running)
            return 0
        task = asyncio.create_task(self._push_code(project, snapshot, source))
        self._pushes[key] = task
        task.add_done_callback(lambda task: self._pushed(key, task))
        return await self._shared(task)

    async def _shared(self, task: asyncio.Task[int]) -> int:
        """A caller that is cancelled does not take the push away from another one that waits for it; and a push that
        `close` has cancelled cancels no caller."""
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise HostUnreachableError(self.name, "the connection was closed") from None
            raise

    def _pushed(self, key: tuple[str, str], task: asyncio.Task[int]) -> None:
        self._pushes.pop(key, None)
        if not task.cancelled():
            task.exception()

    async def _push_code(self, project: str, snapshot: Snapshot, source: CodeSource) -> int:
        channel = await self._channel()
        known = list(await asyncio.to_thread(source.known))
        answer = await channel.ask(
            wire.CODE_BASIS, {"project": project, "commit": snapshot.commit, "known": known}, deadline=RELEASE_DEADLINE
        )
        if answers.flag(self.name, wire.CODE_BASIS, answer.get("have")):
            return 0
        basis = answers.subset(self.name, wire.CODE_BASIS, answer.get("basis"), known)
        sent = _Counter()
        chunks = sent.count(_from_thread(iter(source.bundle(snapshot, basis))))
        fields = {"project": project, "commit": snapshot.commit, "tree": snapshot.tree}
        await channel.upload(wire.CODE_PUSH, fields, chunks)
        return sent.total

    async def missing_blobs(self, digests: Sequence[str]) -> Sequence[str]:
        channel = await self._channel()
        missing: list[str] = []
        for start in range(0, len(digests), BATCH):
            asked = digests[start : start + BATCH]
            answer = await channel.ask(wire.BLOBS_MISSING, {"digests": list(asked)})
            missing += answers.subset(self.name, wire.BLOBS_MISSING, answer.get("missing"), asked)
        return list(dict.fromkeys(missing))

    async def push_blobs(self, blobs: Sequence[tuple[str, int]], chunks: AsyncIterator[bytes]) -> None:
        channel = await self._channel()
        await channel.upload(wire.BLOBS_PUSH, {"blobs": blobs}, chunks)

    # -- one attempt, until it runs ------------------------------------------------------------------------------

    async def queue(self, slots: int, gpu_shares: int) -> HostQueue:
        """Everything that waits or runs on the host, of all users where its queue is shared, the oldest first."""
        answer = await (await self._channel()).ask(wire.QUEUE, {"slots": slots, "gpu_shares": gpu_shares})
        return answers.queue(self.name, answer)

    async def images(self, names: Sequence[str]) -> Sequence[str]:
        answer = await (await self._channel()).ask(wire.IMAGES, {"images": list(names)})
        return answers.subset(self.name, wire.IMAGES, answer.get("present"), names)

    async def ended_coordinators(self, ids: Sequence[str]) -> Sequence[str]:
        answer = await (await self._channel()).ask(wire.COORDINATORS_ENDED, {"ids": list(ids)})
        return answers.subset(self.name, wire.COORDINATORS_ENDED, answer.get("ended"), ids)

    async def hold(self, nonce: Nonce, demand: Demand, told: Callable[[str], None] = lambda text: None) -> None:
        """Wait for what is asked for and a supervisor that holds it; cancelled, the host is told to drop both."""
        channel = await self._channel()
        try:
            async with aclosing(channel.download(wire.HOLD, {"nonce": nonce, **_asked(demand)})) as lines:
                async for data in lines:
                    told(answers.last_line(data))
        except asyncio.CancelledError:
            # Both: `download` cancels a hold that still waits, `drop` ends one whose answer is on its way already.
            channel.later(wire.DROP, {"nonce": nonce})
            raise

    async def drop(self, nonce: Nonce) -> None:
        await (await self._channel()).ask(wire.DROP, {"nonce": nonce})

    async def prepare(self, nonce: Nonce, attempt: Mapping[str, Any]) -> None:
        """Lay the work tree of an attempt; `attempt` has the fields of docs/format.md §2, below 1 MiB as JSON.

        Takes as long as it takes; cancelled, the runner is told to give it up.
        """
        channel = await self._channel()
        await channel.ask_long(wire.PREPARE, {**attempt, "nonce": nonce})

    async def go(self, nonce: Nonce, environment: Mapping[str, str]) -> float:
        channel = await self._channel()
        answer = await channel.ask(wire.GO, {"nonce": nonce, "environment": dict(environment)})
        if not answers.flag(self.name, wire.GO, answer.get("started")):
            return 0.0
        return answers.moment(self.name, wire.GO, answer.get("at"))

    async def verdict(self, nonce: Nonce) -> str:
        answer = await (await self._channel()).ask(wire.VERDICT, {"nonce": nonce})
        return answers.choice(self.name, wire.VERDICT, answer.get("verdict"), (wire.STARTED, wire.REFUSED))

    async def sighting(self, nonce: Nonce, account: str) -> str:
        answer = await (await self._channel()).ask(wire.SIGHTING, {"nonce": nonce, "account": account})
        return answers.choice(self.name, wire.SIGHTING, answer.get("sighting"), wire.SIGHTINGS)

    # -- one attempt, from then on -------------------------------------------------------------------------------

    async def follow(self, nonce: Nonce, offset: int) -> AsyncGenerator[bytes, None]:
        """The log from `offset` on as it grows, in pieces cut anywhere of at most 256 KiB.

        The host stays at most a window ahead of the consumer. Close the iterator (`contextlib.aclosing`) when leaving
        it early, and the host stops at once.
        """
        channel = await self._channel()
        async with aclosing(channel.download(wire.FOLLOW, {"nonce": nonce, "offset": offset})) as chunks:
            async for chunk in chunks:
                yield chunk

    async def wait(self, nonce: Nonce) -> ExitReport:
        answer = await (await self._channel()).ask_long(wire.WAIT, {"nonce": nonce})
        return answers.exit_report(self.name, wire.WAIT, answer.get("exit"))

    async def status(self, nonce: Nonce) -> AttemptStatus:
        """What the host knows of an attempt now; changes nothing."""
        return answers.status(self.name, await (await self._channel()).ask(wire.STATUS, {"nonce": nonce}))

    async def spool(self) -> Sequence[Spooled]:
        return answers.spool(self.name, await (await self._channel()).ask(wire.SPOOL, {}))

    async def stop(self, nonce: Nonce, *, abort: bool = False) -> ExitReport:
        """End the whole process tree: TERM, `GRACE` seconds, KILL; `abort` leaves out the first two."""
        fields = {"nonce": nonce, "grace": 0.0 if abort else GRACE, "abort": abort}
        channel = await self._channel()
        # No deadline: what cannot be killed, as in a hanging disk, is waited for. The caller may give up.
        answer = await channel.ask(wire.STOP, fields, deadline=None)
        ended = answer.get("exit")
        if ended is None:
            return ExitReport(code=None, stopped=True, reason="it was stopped before it started")
        return answers.exit_report(self.name, wire.STOP, ended)

    async def manifest(self, nonce: Nonce) -> Manifest:
        channel = await self._channel()
        listing, ended = Listing(self.name), _Last()
        async with aclosing(channel.download(wire.MANIFEST, {"nonce": nonce}, ended)) as chunks:
            async for chunk in chunks:
                listing.feed(chunk)
        return listing.manifest(ended.answer)

    async def read_pack(self, nonce: Nonce, pack: str) -> AsyncGenerator[bytes, None]:
        """The bytes of one pack, which are not verified here; close the iterator when leaving it early."""
        channel = await self._channel()
        async with aclosing(channel.download(wire.PACK_READ, {"nonce": nonce, "pack": pack})) as chunks:
            async for chunk in chunks:
                yield chunk

    async def release(self, nonce: Nonce) -> None:
        channel = await self._channel()
        await channel.ask(wire.RELEASE, {"nonce": nonce}, deadline=RELEASE_DEADLINE)

    # -- the connection ------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """End the runner: held supervisors refuse, started jobs go on. Never raises for a lost connection."""
        for task in tuple(self._pushes.values()):
            task.cancel()
        if self._open is not None:
            await self._open.close()

    async def _channel(self) -> Channel:
        async with self._connecting:
            if self._open is None:
                self._open = await self._connected()
            return self._open

    async def _connected(self) -> Channel:
        transport = await self._open_transport()
        channel = None
        try:
            started = await start_runner(transport, self._program, deadline=START_DEADLINE)
            self.closed = started.closed
            channel = Channel(transport, started.first)
            hello = await channel.ask(wire.HELLO, {"lease": wire.LEASE}, deadline=QUICK)
            self._first_facts = answers.facts(self.name, hello)
            channel.keep_lease()
            return channel
        except BaseException:
            with suppress(DstackError):
                await (transport if channel is None else channel).close()
            raise


class _Last:
    """Keeps the answer that ends a stream."""

    def __init__(self) -> None:
        self.answer: dict[str, Any] = {}

    def __call__(self, answer: dict[str, Any]) -> None:
        self.answer = answer


class _Counter:
    def __init__(self) -> None:
        self.total = 0

    async def count(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            self.total += len(chunk)
            yield chunk


async def _from_thread(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    """A blocking iterator, advanced in a thread so that the event loop never waits for it."""
    iterator = iter(chunks)
    while (chunk := await asyncio.to_thread(next, iterator, None)) is not None:
        yield chunk


def _asked(demand: Demand) -> dict[str, Any]:
    """The fields of `hold` in docs/format.md §2."""
    wanted = demand.resources
    gpu = wanted.gpu or Gpu(count=0)
    return {
        "slots": demand.slots,
        "gpu_shares": demand.gpu_shares,
        "priority": demand.priority,
        "title": demand.title,
        "demand": {
            "cpu": wanted.cpu or 0,
            "memory": wanted.memory or 0,
            "gpus": gpu.count,
            "gpu_name": gpu.name or "",
            "gpu_memory": gpu.memory or 0,
        },
    }
