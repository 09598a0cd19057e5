"""Performs the effects of the steps for one run: on the bucket, and on the hosts through their runners."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace

from dstack.app.coordination.context import CoordinationContext
from dstack.app.coordination.inputs import Inputs
from dstack.app.coordination.preparation import Preparation
from dstack.app.coordination.slot_search import SlotSearch
from dstack.app.effects import catalogue as fx
from dstack.app.effects.answers import (
    CollectAnswer,
    Collected,
    HostUnreachable,
    JobStarted,
    JobUnkillable,
    Liveness,
    NotCollected,
    PrepareAnswer,
    Silence,
    SlotAnswer,
    StartAnswer,
    StartRefused,
    StartUnknown,
    StopAnswer,
    Uncollectable,
    Verdict,
    WatchAnswer,
)
from dstack.app.effects.steps import Steps, take
from dstack.app.hosts.frozen_runners import ask_living
from dstack.app.hosts.hosts_of_claims import ClaimHosts
from dstack.app.protocol import job_secrets
from dstack.app.protocol.attempts import WAITS_FOR_A_SLOT
from dstack.app.transfer.artifacts import collect_artifacts
from dstack.app.transfer.attempt_watch import AttemptWatch, carry_log, tail
from dstack.app.transfer.threaded_bucket import ThreadedCreator
from dstack.core.format.key_parser import takes_attempt
from dstack.core.format.keys import AttemptKeys
from dstack.core.format.records import Claim, RunRecord, Started, unpack
from dstack.core.lifecycle import ENDED_STATES
from dstack.core.time_spans import seconds_between
from dstack.errors import (
    BucketError,
    DstackError,
    HostError,
    HostUnreachableError,
    NoRoomError,
    NotHeldError,
    UnkillableError,
)
from dstack.model import ExitReport, JobSpec, JobStatus, Nonce, WorkflowName
from dstack.ports import Put, RunnerPort

DISK_ROOM_WAIT_S = 300.0
"""Seconds that a full disk has to find room for the list of an ended job's artifacts."""
REST_OF_LOG_WAIT_S = 5.0
"""Seconds for the rest of a log, before the records are asked whether another coordinator has finished the job
meanwhile."""


class Driver(ThreadedCreator):
    """The effects of one run. `outcomes` are the settled jobs, by workflow: the inputs of later jobs."""

    def __init__(self, context: CoordinationContext, run: RunRecord) -> None:
        super().__init__(context.bucket)
        self._context = context
        self._run = run
        self.specs = run.plan.jobs
        self._takers: dict[WorkflowName, WorkflowName] = {}
        self.inputs = Inputs(context.bucket, context.keys)
        self.outcomes = self.inputs.outcomes
        self._slot_search = SlotSearch(context, run, self.outcomes, running=self._running, show_reason=self._show_wait)
        self._preparation = Preparation(context, run, self.inputs, holder=self._slot_search.holder)
        self._full_since: dict[str, float] = {}
        """When a host first had no room for the list of an ended attempt's artifacts, by this machine's own clock."""
        self._hosts = ClaimHosts(context.fleet, context.observer, context.screen)
        context.heart.report_hosts(self._hosts)
        self._lost: set[str] = set()
        """Attempts that were called lost, by their nonces."""
        self._lingering: set[asyncio.Task[None]] = set()
        self._watches: dict[str, AttemptWatch] = {}
        self._log_tails: dict[str, asyncio.Task[None]] = {}
        self._shown: dict[WorkflowName, tuple[str, str, str]] = {}

    # -- effects ----------------------------------------------------------------------------------

    async def put_new(self, effect: fx.PutNew, /) -> Put:
        # A claim or an adoption of a coordinator without a heartbeat counts as nobody's.
        if takes_attempt(effect.key):
            await self._context.heart.begin()
        return await super().put_new(effect)

    async def new_nonce(self, effect: fx.NewNonce, /) -> Nonce:
        return Nonce(self._context.new_nonce())

    async def alive(self, effect: fx.Alive, /) -> Liveness:
        """The observer's answer; where the heartbeat is overdue, also certain knowledge of the claim's host."""
        observer, claim = self._context.observer, effect.claim
        alive = await asyncio.to_thread(observer.alive, effect.coordinator)
        if alive is Liveness.UNKNOWN and claim is not None and observer.is_late(effect.coordinator):
            return Liveness.DEAD if self._context.fleet.has_ended(effect.coordinator, claim) else Liveness.UNKNOWN
        return alive

    async def hold_slot(self, effect: fx.HoldSlot, /) -> SlotAnswer:
        return await self._slot_search.hold(effect.nonce, effect.spec, effect.patience)

    async def drop(self, effect: fx.Drop, /) -> None:
        await self._slot_search.drop(effect.nonce)

    async def prepare(self, effect: fx.Prepare, /) -> PrepareAnswer:
        return await self._preparation.prepare(effect.claim, effect.spec, effect.attempt)

    async def ask_verdict(self, effect: fx.AskVerdict, /) -> Verdict:
        return await self._hosts.verdict(effect.claim)

    async def how_silent(self, effect: fx.HowSilent, /) -> Silence:
        return self._hosts.silence(effect.claim, effect.owner)

    async def watch_job(self, effect: fx.WatchJob, /) -> WatchAnswer:
        return await self._watch_of(effect.claim, effect.workflow, effect.attempt).wait(effect.patience)

    async def close(self) -> None:
        """Let go of everything in memory; started jobs go on, held supervisors refuse."""
        self._context.heart.withdraw_hosts(self._hosts)
        self._context.heart.forget_run(self._run.id)
        for task in self._lingering:
            task.cancel()
        await asyncio.gather(*self._lingering, return_exceptions=True)
        for watch in self._watches.values():
            await watch.close()
        await self._slot_search.close()
        for task in self._log_tails.values():
            task.cancel()
        await asyncio.gather(*self._log_tails.values(), return_exceptions=True)

    # -- placement and start ----------------------------------------------------------------------

    def _show_wait(self, spec: JobSpec, why: str) -> None:
        self._show(fx.Show(workflow=spec.workflow, status=JobStatus.QUEUED, note=why))

    def _running(self) -> Mapping[str, int]:
        """The number of jobs of the run at work, by host, started by any coordinator."""
        return Counter(
            host for status, host, _ in self._shown.values() if host and JobStatus(status) not in ENDED_STATES
        )

    async def start_job(self, effect: fx.StartJob, /) -> StartAnswer:
        nonce, values = Nonce(effect.claim.nonce), job_secrets.environment(effect.spec, self._context.caller)
        try:
            at = await self._hosts.ask(effect.claim, lambda runner: runner.go(nonce, values))
        except NotHeldError:
            return StartUnknown()  # another connection than the one that held it
        if at is None:
            return StartUnknown()
        # A started job has a time of at least 1.0 (`Attempt.decided_at`); 0.0 stands for the verdict `refused`.
        return JobStarted(at) if at > 0 else StartRefused()

    # -- the running attempt ----------------------------------------------------------------------

    async def linger(self, effect: fx.Linger, /) -> None:
        """Take the steps of a lost attempt beside all else; log and troubles of the attempt are no longer shown."""
        self._lost.add(effect.claim.nonce)
        task = asyncio.create_task(self._to_the_end(effect.claim, effect.steps))
        self._lingering.add(task)
        task.add_done_callback(self._lingering.discard)

    async def _to_the_end(self, claim: Claim, steps: Steps[fx.Performer, None]) -> None:
        try:
            await take(steps, self)
        except DstackError as error:
            self._context.screen.message(f"{claim.host}: a lost attempt could not be ended: {error}")

    async def give_time(self, seconds: float) -> None:
        """Let lost attempts that live be ended, for at most so many seconds: no run waits for lost attempts any
        more."""
        if self._lingering:
            await asyncio.wait(self._lingering, timeout=seconds)

    async def stop_job(self, effect: fx.StopJob, /) -> StopAnswer:
        """A stop takes as long as the job's grace, so a runner that is frozen is known by its pulse alone."""

        def stop(runner: RunnerPort) -> Awaitable[ExitReport]:
            return runner.stop(Nonce(effect.claim.nonce), abort=effect.abort)

        link = self._context.fleet.link_of(effect.claim)
        try:
            return await self._hosts.ask(effect.claim, lambda _: ask_living(link, stop)) or HostUnreachable()
        except UnkillableError as error:
            return JobUnkillable(str(error))

    def _watch_of(self, claim: Claim, workflow: WorkflowName, attempt: AttemptKeys) -> AttemptWatch:
        watch = self._watches.get(claim.nonce)
        if watch is None:
            watch = self._watches[claim.nonce] = AttemptWatch(
                self._context.bucket,
                attempt,
                self._context.fleet.link_of(claim),
                nonce=Nonce(claim.nonce),
                show=lambda data: self._show_log(claim, workflow, data),
                trouble=lambda error: self._troubled(claim, workflow, error),
            )
        return watch

    def _show_log(self, claim: Claim, workflow: WorkflowName, data: bytes) -> None:
        if claim.nonce not in self._lost:
            self._context.screen.log(workflow, data)

    def _troubled(self, claim: Claim, workflow: WorkflowName, error: DstackError | None) -> None:
        """Show the reason why this coordinator cannot watch the job; a silent bucket says nothing of the job's host."""
        self._hosts.note_watch(claim, error)
        if claim.nonce in self._lost:
            return
        note = "" if error is None else str(error)
        self._show(fx.Show(workflow=workflow, status=JobStatus.RUNNING, host=claim.host, note=note, mine=True))

    async def collect(self, effect: fx.Collect, /) -> CollectAnswer:
        link = self._context.fleet.link_of(effect.claim)
        runner: RunnerPort | None = None
        try:
            runner = (await link.reach()).runner
            if not await self._rest_of_log(runner, effect):
                return NotCollected()
            if effect.keep:
                return await self._artifacts(runner, effect)
            return Collected(manifest="", digest="")
        except HostUnreachableError:
            if runner is not None:
                await link.drop_runner(runner)
            return NotCollected()
        except NoRoomError as error:
            return self._wait_for_room(effect, str(error))
        except HostError as error:
            return Uncollectable(str(error))

    def _wait_for_room(self, effect: fx.Collect, why: str) -> CollectAnswer:
        """Wait for room on the host for the list of artifacts, up to DISK_ROOM_WAIT_S seconds; then the list is lost.
        The job has ended, and its work may be the work of days."""
        now = time.monotonic()
        if now - self._full_since.setdefault(effect.claim.nonce, now) > DISK_ROOM_WAIT_S:
            return Uncollectable(why)
        note = f"{why}; waits for room"
        self._show(fx.Show(workflow=effect.workflow, status=JobStatus.UPLOADING, host=effect.claim.host, note=note))
        return NotCollected()

    async def _artifacts(self, runner: RunnerPort, effect: fx.Collect) -> Collected:
        nonce, progress = Nonce(effect.claim.nonce), self._progress(f"{effect.workflow}: artifacts")
        bucket, partial = self._context.bucket, effect.partial
        return await collect_artifacts(runner, bucket, effect.attempt, nonce, partial=partial, progress=progress)

    async def _rest_of_log(self, runner: RunnerPort, effect: fx.Collect) -> bool:
        """Whether the whole log is in the bucket, also the part before the first line and after the answer to a
        stop."""
        watch = self._watches.get(effect.claim.nonce)
        # The watch carries the log already; a second carrier would send the same bytes again.
        if watch is not None:
            return isinstance(await watch.wait(REST_OF_LOG_WAIT_S), ExitReport)
        nonce = Nonce(effect.claim.nonce)
        await carry_log(
            self._context.bucket,
            effect.attempt,
            lambda offset: runner.follow(nonce, offset),
            show=lambda _, data: self._context.screen.log(effect.workflow, data),
        )
        return True

    async def release(self, effect: fx.Release, /) -> None:
        claim = effect.claim
        watch = self._watches.pop(claim.nonce, None)
        if watch is not None:
            await watch.close()
        self._slot_search.release(claim.nonce)
        self._hosts.forget(claim)
        self._full_since.pop(claim.nonce, None)
        try:
            await self._hosts.ask(claim, lambda runner: runner.release(Nonce(claim.nonce)))
        # The attempt then lies on the host until a later coordinator of the account cleans up.
        except HostError as error:
            self._context.screen.message(str(error))

    # -- the screen -------------------------------------------------------------------------------

    def _progress(self, label: str) -> Callable[[int, int], None]:
        return lambda done, total: self._context.screen.progress(label, done, total)

    @contextmanager
    def shown_as(self, workflow: WorkflowName, taker: WorkflowName) -> Iterator[None]:
        """Inside the block, the state of a job with an outcome is shown at `taker`, the job that waits for the
        artifacts."""
        self._takers[workflow] = taker
        try:
            yield
        finally:
            del self._takers[workflow]

    async def show(self, effect: fx.Show, /) -> None:
        self._show(effect)

    def _show(self, effect: fx.Show) -> None:
        taker = self._takers.get(effect.workflow)
        if taker is not None:
            note = f"{effect.workflow} is made anew: {effect.status}{f' ({effect.note})' if effect.note else ''}"
            effect = replace(effect, workflow=taker, status=JobStatus.QUEUED, note=note)
        state = (effect.status.value, effect.host, effect.note)
        if self._shown.get(effect.workflow) != state:
            self._shown[effect.workflow] = state
            self._context.screen.job(effect.workflow, *state)
            is_news = effect.status is JobStatus.QUEUED and effect.note != WAITS_FOR_A_SLOT
            self._context.heart.report_wait(self._run.id, effect.workflow, effect.note if is_news else "")
        if effect.attempt is not None and not effect.mine and effect.attempt.folder not in self._log_tails:
            self._log_tails[effect.attempt.folder] = asyncio.create_task(self._tail(effect.workflow, effect.attempt))

    async def _tail(self, workflow: WorkflowName, attempt: AttemptKeys) -> None:
        async def ended() -> bool:
            return await asyncio.to_thread(self._context.bucket.get, attempt.end) is not None

        try:
            await self._since_when(workflow, attempt)
            await tail(
                self._context.bucket, attempt, show=lambda data: self._context.screen.log(workflow, data), ended=ended
            )
        except DstackError as error:
            self._context.screen.message(str(error))

    async def _since_when(self, workflow: WorkflowName, attempt: AttemptKeys) -> None:
        """Show how long another coordinator's job has run, where the host has said when the job began; no decision
        rests on this."""
        body = await asyncio.to_thread(self._context.bucket.get, attempt.started)
        at = 0.0
        with suppress(BucketError):  # one that is damaged: `fsck` says so, and the log is shown all the same
            at = unpack(Started, attempt.started, body).at if body is not None else 0.0
        state = self._shown.get(workflow)
        if at and state and state[0] == JobStatus.RUNNING and workflow not in self.outcomes:
            self._context.screen.job(workflow, *state, seconds_between(at, time.time()) or 0.0)
