"""Performs effects on the simulated world: the bucket as everybody reads it, and all of a coordinator's effects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dstack.app.effects import catalogue as fx
from dstack.app.effects.answers import (
    BucketSilent,
    CollectAnswer,
    ForeignAttempt,
    HostUnreachable,
    JobRunning,
    JobStarted,
    JobUnkillable,
    Liveness,
    NonceRefused,
    NotBegun,
    NotCollected,
    PrepareAnswer,
    Prepared,
    Silence,
    SlotAnswer,
    SlotAwaited,
    SlotHeld,
    StartAnswer,
    StartRefused,
    StartUnknown,
    StopAnswer,
    Unpreparable,
    Verdict,
    WatchAnswer,
)
from dstack.core.foreign_attempts import belongs, judge
from dstack.core.format.records import Claim, Coordinator
from dstack.core.lifecycle import may_follow
from dstack.model import ExitReport, HostFacts, JobStatus
from dstack.ports import Put
from dstack.wire import ALIVE, UNKNOWN, UNSEEN
from tests.support.records.specs import FACTS
from tests.support.simulator.keepers import Violation
from tests.support.simulator.store_faults import BODY, COLLECTED, CONTENT, PACK
from tests.support.simulator.world_reader import WorldReader

if TYPE_CHECKING:
    from tests.support.simulator.world import Peer, World


@dataclass
class Supervisor:
    """One attempt on the host of the model."""

    nonce: str
    held_by: int | None
    verdict: str | None = None
    account: str = "user1"
    boot: int = 1
    ends_at: float | None = None
    report: ExitReport | None = None
    stopped: bool = False


class PeerPerformer(WorldReader):
    """A `Performer`: the effects of one task of one coordinator, with the faults that befall it."""

    def __init__(self, world: World, peer: Peer, name: str) -> None:
        super().__init__(world)
        self.peer = peer
        self.name = name

    async def put_new(self, effect: fx.PutNew, /) -> Put:
        self.world.check_put(self.peer, effect)
        if self.world.chance(0.03):
            return Put.UNKNOWN
        if self.world.chance(0.02):
            self.world.late.append((self.world.now + self.world.random.random() * 2, effect.key, effect.body))
            return Put.UNKNOWN
        if effect.key in self.world.objects:
            return Put.UNKNOWN if self.world.chance(0.03) else Put.EXISTS
        self.world.write(effect.key, effect.body)
        if self.world.chance(0.05):
            return Put.UNKNOWN
        return Put.EXISTS if self.world.chance(0.03) else Put.CREATED

    async def pause(self, effect: fx.Pause, /) -> None:
        self.peer.wake[self.name] = self.world.now + effect.seconds * (0.5 + self.world.random.random())

    async def show(self, effect: fx.Show, /) -> None:
        if self.name in self.peer.again:
            return
        before = self.peer.shown.get(self.name, JobStatus.WAITING)
        if not may_follow(before, effect.status):
            raise Violation(f"{self.peer.identity.id} shows {self.name} as {effect.status} after {before}")
        self.peer.shown[self.name] = effect.status

    def _taken(self) -> int:
        return sum(
            1
            for supervisor in self.world.supervisors.values()
            if supervisor.report is None and supervisor.verdict != "refused"
        )

    async def hold_slot(self, effect: fx.HoldSlot, /) -> SlotAnswer:
        if self._taken() >= self.world.slots or self.world.chance(0.05):
            self.peer.wake[self.name] = self.world.now + effect.patience
            return SlotAwaited()
        if self.world.chance(0.02):
            self.world.supervisors[effect.nonce] = Supervisor(
                nonce=effect.nonce, held_by=self.peer.number, verdict="refused"
            )
            return NonceRefused()
        self.world.supervisors[effect.nonce] = Supervisor(
            nonce=effect.nonce, held_by=self.peer.number, account=self.peer.account, boot=self.world.boot
        )
        return SlotHeld(
            host="h", boot_id=f"b{self.world.boot}", address={}, account=self.peer.account, folder="/d",
            place=self.peer.account, machine="m",
        )  # fmt: skip

    async def drop(self, effect: fx.Drop, /) -> None:
        supervisor = self.world.supervisors.get(effect.nonce)
        if supervisor is not None and supervisor.verdict is None:
            supervisor.verdict = "refused"

    async def prepare(self, effect: fx.Prepare, /) -> PrepareAnswer:
        if self.world.chance(0.02):
            self._cut(effect.claim)
            return NotBegun("the connection was lost")
        if self.world.chance(0.03):
            return NotBegun("the disk is full")  # held on, until it is dropped
        if self.world.chance(0.02):
            return BucketSilent("the bucket does not answer")
        damage = self.world.faults.inputs(self.peer, effect.spec.workflow)
        if damage is not None:
            return damage
        return Unpreparable("an input lies in the way") if self.world.chance(0.01) else Prepared()

    def _cut(self, claim: Claim) -> None:
        """The connection to the host is lost: what was only held refuses."""
        supervisor = self.world.supervisors.get(claim.nonce)
        if supervisor is not None and supervisor.verdict is None:
            supervisor.verdict = "refused"

    async def start_job(self, effect: fx.StartJob, /) -> StartAnswer:
        supervisor = self.world.supervisors[effect.claim.nonce]
        if supervisor.verdict is None and not self.world.chance(0.02):
            self.world.check_start(effect.claim)
            supervisor.verdict = "started"
            supervisor.ends_at = self.world.now + self.world.random.random() * 6
        else:
            self._cut(effect.claim)
        if self.world.chance(0.03):
            return StartUnknown()
        return JobStarted(1.0) if supervisor.verdict == "started" else StartRefused()

    async def ask_verdict(self, effect: fx.AskVerdict, /) -> Verdict:
        nonce = effect.claim.nonce
        self.peer.foreign.pop(nonce, None)
        if self.world.chance(0.1):
            return HostUnreachable()
        facts = self._facts()
        if not belongs(effect.claim, facts):
            self.peer.foreign[nonce] = judge(effect.claim, facts, self._seen(self.world.supervisors[nonce]))
            return ForeignAttempt(sighting=self.peer.foreign[nonce])
        supervisor = self.world.supervisors.setdefault(nonce, Supervisor(nonce=nonce, held_by=None))
        supervisor.verdict = supervisor.verdict or "refused"
        return JobStarted() if supervisor.verdict == "started" else StartRefused()

    def _facts(self) -> HostFacts:
        """What the host says of itself to this coordinator."""
        account = self.peer.account
        return replace(
            FACTS, boot_id=f"b{self.world.boot}", hostname="h", user=account, dir="/d", place=account, machine="m"
        )

    def _seen(self, supervisor: Supervisor) -> str:
        if not self.world.shows:
            return UNKNOWN
        lives = supervisor.verdict != "refused" and supervisor.report is None
        return ALIVE if lives else UNSEEN

    async def linger(self, effect: fx.Linger, /) -> None:
        key = f"{self.name} lost {effect.claim.nonce}"
        self.peer.tasks[key], self.peer.answers[key] = effect.steps, None

    async def how_silent(self, effect: fx.HowSilent, /) -> Silence:
        if effect.claim.nonce in self.peer.foreign:
            raise Violation(f"{effect.claim.nonce}: its host answered, and is asked for its silence")
        if effect.owner is None and not self.world.chance(0.003):
            return Silence(seconds=0.0, since="12:00")
        return Silence(seconds=self.world.random.choice((0.0, 500.0)), since="12:00", owner=self.world.chance(0.5))

    async def watch_job(self, effect: fx.WatchJob, /) -> WatchAnswer:
        report = self.world.supervisors[effect.claim.nonce].report
        if report is None or self.world.chance(0.1):
            self.peer.wake[self.name] = self.world.now + effect.patience
            return JobRunning()
        return report

    async def stop_job(self, effect: fx.StopJob, /) -> StopAnswer:
        supervisor = self.world.supervisors[effect.claim.nonce]
        if supervisor.report is None and self.world.chance(0.1):
            return JobUnkillable("the kernel does not end: 7 (job, state D)")
        if supervisor.report is None and not self.world.chance(0.1):
            supervisor.report = ExitReport(code=None, signal=15, stopped=True)
        if self.world.chance(0.1):
            return HostUnreachable()
        return supervisor.report or HostUnreachable()

    async def collect(self, effect: fx.Collect, /) -> CollectAnswer:
        if self.world.chance(0.05):
            return NotCollected()
        if effect.keep:
            self.world.write(effect.attempt.pack(PACK), CONTENT)
            if self.world.chance(0.1):
                return NotCollected()
            self.world.write(effect.attempt.manifest, BODY)
        return COLLECTED

    async def release(self, effect: fx.Release, /) -> None:
        return None

    async def alive(self, effect: fx.Alive, /) -> Liveness:
        alive = self._is_alive(effect.coordinator)
        if alive is Liveness.DEAD and self.peer.attendant == effect.coordinator:
            self.peer.attendant = None
        return alive

    def _is_alive(self, coordinator: Coordinator) -> Liveness:
        other = next(each for each in self.world.peers if each.identity.id == coordinator.id)
        if other.crashed:
            return Liveness.UNKNOWN if self.world.chance(0.2) else Liveness.DEAD
        if not other.tasks or self.world.chance(0.03):
            return Liveness.DEAD
        return Liveness.ALIVE

    async def delete(self, effect: fx.Delete, /) -> None:
        raise Violation(f"{self.peer.identity.id} deletes {effect.keys}: no coordinator may")
