"""A host for a coordinator: `RunnerPort` in frames over a transport. docs/format.md §2 is normative."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress

from dstack import wire
from dstack.adapters.deadline import within
from dstack.adapters.runner import answers
from dstack.adapters.runner.answers import AttemptStatus, Listing
from dstack.adapters.runner.channel import Channel, nonsense_error
from dstack.adapters.runner.start import Program, start_runner
from dstack.errors import DstackError, HostUnreachableError
from dstack.model import Demand, ExitReport, Gpu, HostFacts, HostQueue, Manifest, Nonce, Snapshot, Spooled
from dstack.ports import CodeSource, OpenTransport
from dstack.wire.field_kinds import LATEST
from dstack.wire.host_messages import (
    BlobsMissingRequest,
    BlobsPushRequest,
    CancelRequest,
    CodeBasisRequest,
    CodePushRequest,
    CoordinatorsEndedRequest,
    HelloRequest,
    ImagesRequest,
    OtherVersionError,
    QueueRequest,
    SpoolRequest,
)
from dstack.wire.job_messages import (
    JOB_STOP_GRACE_S,
    DropRequest,
    FollowRequest,
    GoRequest,
    HoldRequest,
    JobDemand,
    JobOrder,
    ManifestAnswer,
    ManifestRequest,
    PackReadRequest,
    ReleaseRequest,
    SightingRequest,
    StatusRequest,
    StopRequest,
    VerdictRequest,
    WaitRequest,
)

START_TIMEOUT_S = 60.0
"""Seconds from the first byte to a runner that is ready, on a slow line and after a slow login shell."""
RELEASE_TIMEOUT_S = 600.0
"""Seconds for removing a work tree, which may be large and on a slow disk."""
# A frame holds at most 1 MiB.
MAX_DIGESTS = 8192
"""Digests in one message: half a megabyte."""
DEFAULT_DIRECTORY = "~/.dstack"


class RunnerClient:
    """A `RunnerPort`. Connects at first use, or by `connect`; belongs to one event loop.

    After a lost connection every method raises HostUnreachableError for ever: a new client costs a start of python3 on
    the host. Methods may be called concurrently, and none waits for another's bytes.
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
        """Start the runner unless started; raises HostUnreachableError, or HostError with what the host lacks."""
        await self._channel()

    async def facts(self) -> HostFacts:
        channel = await self._channel()
        if self._first_facts is not None:
            # Used once: a later call wants the present facts, such as the free disk.
            facts, self._first_facts = self._first_facts, None
            return facts
        return await self._greet(channel, HelloRequest())

    async def pulse(self, patience: float) -> None:
        channel = await self._channel()
        try:
            # No request has this number: nothing is cancelled, and there is an answer at once.
            await within(patience, channel.ask(CancelRequest(request=0), deadline=None))
        except TimeoutError:
            raise HostUnreachableError(
                self.name,
                f"the runner gave no sign of life for {patience:.0f} s",
                hint="it is frozen, or a disk of the host hangs; the job, if it runs, goes on",
            ) from None

    # -- bringing things to the host -----------------------------------------------------------------------------

    async def push_code(self, project: str, snapshot: Snapshot, source: CodeSource) -> int:
        """Bring a snapshot to the host; returns the bytes sent, 0 for a host that has the snapshot or gets it by
        another call."""
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
        """Wait for a push shared by several callers. A cancelled caller does not end the push for the others; a push
        cancelled by `close` cancels no caller."""
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
        known = tuple(await asyncio.to_thread(source.known))
        question = CodeBasisRequest(project=project, commit=snapshot.commit, known=known)
        answer = await channel.ask(question, deadline=RELEASE_TIMEOUT_S)
        if answer.have:
            return 0
        basis = answers.subset(self.name, wire.CODE_BASIS, answer.basis, known)
        sent = _Counter()
        chunks = sent.count(_from_thread(iter(source.bundle(snapshot, basis))))
        push = CodePushRequest(project=project, commit=snapshot.commit, tree=snapshot.tree)
        await channel.upload(push, chunks)
        return sent.total

    async def missing_blobs(self, digests: Sequence[str]) -> Sequence[str]:
        channel = await self._channel()
        missing: list[str] = []
        for start in range(0, len(digests), MAX_DIGESTS):
            asked = tuple(digests[start : start + MAX_DIGESTS])
            answer = await channel.ask(BlobsMissingRequest(digests=asked))
            missing += answers.subset(self.name, wire.BLOBS_MISSING, answer.missing, asked)
        return list(dict.fromkeys(missing))

    async def push_blobs(self, blobs: Sequence[tuple[str, int]], chunks: AsyncIterator[bytes]) -> None:
        channel = await self._channel()
        await channel.upload(BlobsPushRequest(blobs=tuple(blobs)), chunks)

    # -- one attempt, until it runs ------------------------------------------------------------------------------

    async def queue(self, slots: int, gpu_shares: int) -> HostQueue:
        """The waiting and running attempts of the host, of all users where the queue is shared, the oldest first."""
        channel = await self._channel()
        return answers.queue(await channel.ask(QueueRequest(slots=slots, gpu_shares=gpu_shares)))

    async def images(self, names: Sequence[str]) -> Sequence[str]:
        answer = await (await self._channel()).ask(ImagesRequest(images=tuple(names)))
        return answers.subset(self.name, wire.IMAGES, answer.present, names)

    async def ended_coordinators(self, ids: Sequence[str]) -> Sequence[str]:
        answer = await (await self._channel()).ask(CoordinatorsEndedRequest(ids=tuple(ids)))
        return answers.subset(self.name, wire.COORDINATORS_ENDED, answer.ended, ids)

    async def hold(self, nonce: Nonce, demand: Demand, told: Callable[[str], None] = lambda text: None) -> None:
        """Wait for the demand and a supervisor to hold the demand; cancelled, the host is told to drop both."""
        channel = await self._channel()
        try:
            async with aclosing(channel.download(_hold_request(nonce, demand))) as lines:
                async for data in lines:
                    told(answers.last_line(data))
        except asyncio.CancelledError:
            # Both: `download` cancels a hold that still waits, `drop` ends one whose answer is on its way already.
            channel.later(DropRequest(nonce=nonce))
            raise

    async def drop(self, nonce: Nonce) -> None:
        await (await self._channel()).ask(DropRequest(nonce=nonce))

    async def prepare(self, order: JobOrder) -> None:
        """Lay the work tree of an attempt; the order must be below 1 MiB as JSON.

        Without a time-out; cancelled, the request is given up on the runner too.
        """
        await (await self._channel()).ask_long(order)

    async def go(self, nonce: Nonce, environment: Mapping[str, str]) -> float:
        channel = await self._channel()
        answer = await channel.ask(GoRequest(nonce=nonce, environment=environment))
        if not answer.started:
            return 0.0
        if not 0 < answer.at < LATEST:
            raise nonsense_error(self.name, wire.GO, "a job that was started has no time")
        return answer.at

    async def verdict(self, nonce: Nonce) -> str:
        return (await (await self._channel()).ask(VerdictRequest(nonce=nonce))).verdict

    async def sighting(self, nonce: Nonce, account: str) -> str:
        return (await (await self._channel()).ask(SightingRequest(nonce=nonce, account=account))).sighting

    # -- one attempt, from then on -------------------------------------------------------------------------------

    async def follow(self, nonce: Nonce, offset: int) -> AsyncGenerator[bytes, None]:
        """The log from `offset` on as the log grows, in pieces cut anywhere of at most 256 KiB.

        The host stays at most a window ahead of the consumer. Close the iterator (`contextlib.aclosing`) when leaving
        early, and the host stops at once.
        """
        channel = await self._channel()
        async with aclosing(channel.download(FollowRequest(nonce=nonce, offset=offset))) as chunks:
            async for chunk in chunks:
                yield chunk

    async def wait(self, nonce: Nonce) -> ExitReport:
        answer = await (await self._channel()).ask_long(WaitRequest(nonce=nonce))
        return answers.exit_report(self.name, wire.WAIT, answer.exit)

    async def status(self, nonce: Nonce) -> AttemptStatus:
        """What the host knows of an attempt now; changes nothing."""
        return answers.status(self.name, await (await self._channel()).ask(StatusRequest(nonce=nonce)))

    async def spool(self) -> Sequence[Spooled]:
        return answers.spool(await (await self._channel()).ask(SpoolRequest()))

    async def stop(self, nonce: Nonce, *, abort: bool = False) -> ExitReport:
        """End the whole process tree: TERM, JOB_STOP_GRACE_S seconds, KILL; `abort` leaves out the first two."""
        wish = StopRequest(nonce=nonce, grace=0.0 if abort else JOB_STOP_GRACE_S, abort=abort)
        channel = await self._channel()
        # No deadline: what cannot be killed, as in a hanging disk, is waited for. The caller may give up.
        answer = await channel.ask(wish, deadline=None)
        if answer.exit is None:
            return ExitReport(code=None, stopped=True, reason="it was stopped before it started")
        return answers.exit_report(self.name, wire.STOP, answer.exit)

    async def manifest(self, nonce: Nonce) -> Manifest:
        channel = await self._channel()
        listing, ends = Listing(self.name), list[ManifestAnswer]()
        async with aclosing(channel.download(ManifestRequest(nonce=nonce), ends.append)) as chunks:
            async for chunk in chunks:
                listing.feed(chunk)
        return listing.manifest(ends[0])

    async def read_pack(self, nonce: Nonce, pack: str) -> AsyncGenerator[bytes, None]:
        """The unverified bytes of a pack; close the iterator when leaving early."""
        channel = await self._channel()
        async with aclosing(channel.download(PackReadRequest(nonce=nonce, pack=pack))) as chunks:
            async for chunk in chunks:
                yield chunk

    async def release(self, nonce: Nonce) -> None:
        channel = await self._channel()
        await channel.ask(ReleaseRequest(nonce=nonce), deadline=RELEASE_TIMEOUT_S)

    # -- the connection ------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """End the runner: held supervisors refuse, started jobs go on. Never raises for a lost connection."""
        for task in tuple(self._pushes.values()):
            task.cancel()
        if self._open is not None:
            await self._open.close()

    async def _greet(self, channel: Channel, hello: HelloRequest) -> HostFacts:
        try:
            return answers.facts(self.name, await channel.ask(hello))
        except OtherVersionError as other:
            raise answers.other_version(self.name, other.spoken) from None

    async def _channel(self) -> Channel:
        async with self._connecting:
            if self._open is None:
                self._open = await self._connected()
            return self._open

    async def _connected(self) -> Channel:
        transport = await self._open_transport()
        channel = None
        try:
            started = await start_runner(transport, self._program, deadline=START_TIMEOUT_S)
            self.closed = started.closed
            channel = Channel(transport, started.first)
            self._first_facts = await self._greet(channel, HelloRequest(lease=wire.LEASE_S))
            channel.keep_lease()
            return channel
        except BaseException:
            # Also for a cancelled caller: nobody else knows the transport yet.
            with suppress(DstackError):
                await (transport if channel is None else channel).close()
            raise


class _Counter:
    def __init__(self) -> None:
        self.total = 0

    async def count(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            self.total += len(chunk)
            yield chunk


async def _from_thread(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    """A blocking iterator, advanced in a thread so that the event loop never waits."""
    iterator = iter(chunks)
    # With a default, because a StopIteration cannot pass through a future.
    while (chunk := await asyncio.to_thread(next, iterator, None)) is not None:
        yield chunk


def _hold_request(nonce: Nonce, demand: Demand) -> HoldRequest:
    wanted = demand.resources
    gpu = wanted.gpu or Gpu(count=0)
    return HoldRequest(
        nonce=nonce,
        slots=demand.slots,
        gpu_shares=demand.gpu_shares,
        priority=demand.priority,
        title=demand.title,
        demand=JobDemand(
            cpu=wanted.cpu or 0,
            memory=wanted.memory or 0,
            gpus=gpu.count,
            gpu_name=gpu.name or "",
            gpu_memory=gpu.memory or 0,
        ),
    )
