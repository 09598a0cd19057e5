"""A deterministic world for the shipped steps: coordinators, hosts and a bucket with faults, from one seed.

Every effect of every coordinator is one turn. Before and after each turn the coordinator may crash; answers of the
bucket may be lost, come late or be repeated; coordinators pause, are wrongly called dead and come back. The judge
(`World.check_*`) looks at the model of hosts and bucket only, never at what a coordinator believes.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dstack.app.coordination.standby import stand_by
from dstack.app.effects import catalogue as fx
from dstack.app.effects.steps import Effect, Steps, on_the_spot
from dstack.app.protocol import settlement
from dstack.app.protocol.jobs import Job
from dstack.core.foreign_attempts import Sighting
from dstack.core.format.keys import ProjectKeys
from dstack.core.format.records import Claim, Coordinator, End, Outcome, Result, RunRecord, Stop, Want, pack, unpack
from dstack.core.lifecycle import GOOD_STATES
from dstack.errors import BucketError, DamagedObjectError
from dstack.model import (
    ExitReport,
    Fingerprint,
    JobStatus,
    Retry,
    RunId,
    RunName,
    RunPlan,
    Snapshot,
    WorkflowName,
)
from tests.support.records import specs
from tests.support.simulator.keepers import Keepers, Violation
from tests.support.simulator.peer_performer import PeerPerformer, Supervisor
from tests.support.simulator.store_faults import StoreFaults

A = TypeVar("A")
PROJECT = ProjectKeys.of("sim")
QUIET_AFTER = 400
"""Turns with faults; after them every run must come to its end."""
ONCE = Retry()
STANDBY = "stands by"
"""The one task of a peer that stands by: no workflow is called so."""
LIMIT = 6000
"""Turns after which a run that has no end counts as stuck."""


@dataclass
class Peer:
    """One coordinator process."""

    identity: Coordinator
    number: int
    run: RunRecord
    account: str = "user1"
    """Under which it reaches the host; not always the account of whoever made the run."""
    tasks: dict[str, Steps[fx.Performer, Any]] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    wake: dict[str, float] = field(default_factory=dict)
    answers: dict[str, object] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    shown: dict[str, JobStatus] = field(default_factory=dict)
    sources: dict[str, Outcome] = field(default_factory=dict)
    """Where the artifacts of settled jobs are taken from."""
    again: dict[str, str] = field(default_factory=dict)
    """Job -> the job before it whose artifacts are made anew for it now."""
    crashed: bool = False
    paused_until: float = 0.0
    foreign: dict[str, Sighting] = field(default_factory=dict)
    """What the host answered last of attempts of other accounts."""
    attendant: Coordinator | None = None
    """For whom it stands by, until that one was called dead."""


def run_of(index: int, workflows: tuple[str, ...], retry: Retry = ONCE) -> RunRecord:
    return RunRecord(
        nonce=f"run{index}",
        id=RunId(f"{index:013d}-aaaaaaaaaa"),
        name=RunName(f"run-{index}"),
        user=f"user{index}",
        machine="m",
        submitted=0.0,
        workflow=WorkflowName(workflows[-1]),
        plan=RunPlan(
            jobs=tuple(
                specs.spec(name, script="true\n", artifacts=("out",), code="0" * 64, retry=retry) for name in workflows
            )
        ),
        snapshot=Snapshot(commit="c", tree="t", prefix="", head=None, branch=None, remote=None, dirty=False),
    )


class World:
    """The model: one bucket, one host with slots, and coordinators that come and go."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.turns = 0
        self.objects: dict[str, bytes] = {}
        self.written: dict[str, bytes] = {}
        """Everything that was ever created, as it was first, in that order."""
        self.born: dict[str, int] = {}
        """The turn in which each object was created first; a claim: last."""
        self.late: list[tuple[float, str, bytes]] = []
        self.supervisors: dict[str, Supervisor] = {}
        self.slots = self.random.randint(1, 2)
        self.peers: list[Peer] = []
        self.nonces = 0
        self.stops: set[str] = set()
        self.stop_rate = self.random.choice((0.0005, 0.002, 0.02))
        self.pause_rate = self.random.choice((0.01, 0.06))
        count = self.random.randint(1, 3)
        names = ("a", "b")[: self.random.randint(1, 2)]
        self.retries = self.random.random() < 0.3
        retry = Retry(attempts=3, on=("lost",)) if self.retries else Retry()
        self.runs = [run_of(index + 1, names, retry) for index in range(count)]
        self.fresh = {run.id: self.random.random() < 0.15 for run in self.runs}
        self.lost_rate = self.random.choice((0.0, 0.0, 0.002))
        self.fails = {name: self.random.random() < 0.25 for name in names}
        self.accounts = self.random.random() < 0.5
        """Whether each person has an account of their own on the host."""
        self.shows = self.random.random() < 0.8
        """Whether the host shows accounts what other accounts run."""
        self.boot = 1
        self.reboot_rate = self.random.choice((0.0, 0.0, 0.002)) if self.accounts else 0.0
        prunes = self.random.random() < 0.5
        self.begins = {run.id: 0.0 for run in self.runs}
        if prunes:
            self.runs += [run_of(index, names) for index in range(count + 1, count + 1 + self.random.randint(0, 2))]
            self.begins = {run.id: self.random.choice((0.0, self.random.random() * 25)) for run in self.runs}
            self.fresh |= {run.id: self.random.random() < 0.15 for run in self.runs}
        self.keepers = Keepers(self, PROJECT, active=prunes)
        self.faults = StoreFaults(self, PROJECT)
        for run in self.runs:
            self.write(PROJECT.run(run.id).record, pack(run))
        for run in self.runs:
            if self.begins[run.id]:
                continue
            for _ in range(self.random.randint(1, 2)):
                self.start_peer(run)
        if seed % 4 == 0:
            for peer in list(self.peers):
                self.start_peer(peer.run, attendant=peer)

    # -- life of coordinators ---------------------------------------------------------------------

    def account_of(self, run: RunRecord) -> str:
        """Mostly that of whoever made the run: a colleague may attach. In the end whoever is waited for does."""
        if not self.accounts:
            return "user1"
        awaited = self._awaited(run)
        if self.quiet and awaited:
            return self.random.choice(awaited)
        return self.random.choice([run.user, run.user, *(other.user for other in self.runs)])

    def start_peer(self, run: RunRecord, *, attendant: Peer | None = None) -> None:
        """A coordinator of the run, which works on it at once, or stands by for its attendant, under whose account it
        is on the host."""
        number = len(self.peers) + 1
        account = attendant.account if attendant is not None else self.account_of(run)
        identity = Coordinator(id=f"c{number}", user=run.user, machine="m", boot_id="b", pid=number, lock="/x")
        peer = Peer(identity=identity, number=number, run=run, account=account)
        self.peers.append(peer)
        if attendant is None:
            self._take_up(peer)
        else:
            peer.attendant = attendant.identity
            peer.tasks[STANDBY] = stand_by(PROJECT.run(run.id), attendant.identity)
            peer.answers[STANDBY] = None

    def _take_up(self, peer: Peer) -> None:
        run = peer.run
        for spec in run.plan.jobs:
            fingerprint = Fingerprint(hashlib.sha256(spec.workflow.encode()).hexdigest())
            fresh = "asked for" if self.fresh[run.id] else ""
            job = Job(run=run, spec=spec, fingerprint=fingerprint, project=PROJECT, fresh=fresh)
            peer.jobs[spec.workflow] = job
            if spec.workflow != self.faults.taker:
                peer.tasks[spec.workflow] = settlement.settle(job, peer.identity)
                peer.answers[spec.workflow] = None

    def crash(self, peer: Peer) -> None:
        peer.crashed = True
        peer.tasks.clear()

    def write(self, key: str, body: bytes) -> None:
        """Create the object unless it is there."""
        if key in self.objects:
            return
        self.objects[key] = body
        self.faults.made[key] = self.now
        self.written.setdefault(key, body)
        if "/claim/" in key or key not in self.born:
            self.born[key] = self.turns

    @property
    def quiet(self) -> bool:
        return self.turns > QUIET_AFTER

    def chance(self, probability: float) -> bool:
        return not self.quiet and self.random.random() < probability

    # -- the scheduler ----------------------------------------------------------------------------

    def play(self) -> None:
        """Turn after turn until every run has an outcome for every job, then the judge's last look."""
        while self.turns < LIMIT:
            self.turns += 1
            self._world_moves()
            if self._all_done():
                self.check_end()
                return
            if self.keepers.turn():
                continue
            ready = self._ready()
            if not ready:
                self.now += 0.3
                continue
            self._turn(*self.random.choice(ready))
        missing = [run.name for run in self.runs if not self._done(run)]
        raise Violation(f"stuck: {missing} have no outcome after {self.turns} turns")

    def _ready(self) -> list[tuple[Peer, str]]:
        return [
            (peer, name)
            for peer in self.peers
            if not peer.crashed and peer.paused_until <= self.now
            for name in peer.tasks
            if peer.wake.get(name, 0.0) <= self.now
        ]

    def _world_moves(self) -> None:
        self.now += self.random.random() * 0.05
        for supervisor in self.supervisors.values():
            holder = supervisor.held_by
            abandoned = supervisor.verdict is None and holder is not None and self.peers[holder - 1].crashed
            if abandoned and self.random.random() < 0.5:
                supervisor.verdict = "refused"
            if supervisor.ends_at is not None and supervisor.report is None and supervisor.ends_at <= self.now:
                supervisor.report = self._natural_end(supervisor)
        for at, key, body in list(self.late):
            if at <= self.now:
                self.late.remove((at, key, body))
                self.write(key, body)
        self.faults.strike()
        if self.chance(self.lost_rate):
            self._somebody_says_lost()
        if self.chance(self.reboot_rate):
            self._reboot()
        for run in self.runs:
            if self.chance(self.stop_rate) and run.id not in self.stops:
                self.stops.add(run.id)
                self.write(PROJECT.run(run.id).stop(None), pack(Stop(nonce="s", user="u", reason="asked")))
            if self.begins[run.id] > self.now:
                continue
            if not self._done(run) and self._lacks_peers(run) and self.random.random() < 0.2:
                for _ in range(self.random.randint(1, 2) if self.begins[run.id] else 1):
                    self.start_peer(run)

    def _lacks_peers(self, run: RunRecord) -> bool:
        """Whether nobody is at work on the run, or, in the end, nobody of the account that alone can bring it there."""
        active = [peer for peer in self.peers if peer.run is run and not peer.crashed and peer.tasks]
        if not active:
            return True
        return self.quiet and not {peer.account for peer in active} >= set(self._awaited(run))

    def _awaited(self, run: RunRecord) -> list[str]:
        """The accounts whose attempts the run waits for."""
        peers = [peer for peer in self.peers if peer.run is run and not peer.crashed and peer.tasks]
        return sorted({self.supervisors[nonce].account for peer in peers for nonce in peer.foreign})

    def _reboot(self) -> None:
        """The host starts again: nothing of any attempt lives, and what was only held is refused."""
        self.boot += 1
        for supervisor in self.supervisors.values():
            if supervisor.verdict is None:
                supervisor.verdict = "refused"
            elif supervisor.verdict == "started" and supervisor.report is None:
                supervisor.report = ExitReport(code=None, reason="it vanished", vanished=True)

    def _somebody_says_lost(self) -> None:
        """`dstack lost` for an attempt that has not ended, whether it is lost or not."""
        claims = [key for key in self.objects if "/claim/" in key]
        ends = {key: key.replace("/claim/", "/a/") + "/end" for key in claims}
        live = [key for key in claims if ends[key] not in self.objects]
        if live:
            key = self.random.choice(live)
            end = End(nonce=_nonce(key, self.objects[key]), status="lost", reason="somebody said so")
            self.write(ends[key], pack(end))

    def _natural_end(self, supervisor: Supervisor) -> ExitReport:
        return ExitReport(code=1 if self.random.random() < self._failure_rate(supervisor.nonce) else 0)

    def _failure_rate(self, nonce: str) -> float:
        return 0.5 if any(self.fails.values()) else 0.0

    def _turn(self, peer: Peer, name: str) -> None:
        if self.chance(0.004):
            self.crash(peer)
            return
        if self.chance(self.pause_rate):
            peer.paused_until = self.now + self.random.random() * 5
            return
        task = peer.tasks[name]
        try:
            effect = task.send(peer.answers[name])
        except StopIteration as end:
            if name in peer.again:
                self.faults.replaced(peer, name, end.value)
                return
            if name not in peer.jobs:  # a lost attempt came to its end, or there is nobody to stand by for
                del peer.tasks[name]
                if name == STANDBY and end.value:
                    self._take_up(peer)
                return
            self.perform(peer, name, fx.Show(workflow=WorkflowName(name), status=end.value.status))
            self._settled(peer, name, end.value)
            return
        except DamagedObjectError as error:
            if name not in peer.jobs:
                del peer.tasks[name]
                return
            self.faults.damaged(peer, name, error)
            return
        except BucketError:
            # As `coordination/run.py` does: again, after a moment.
            if name not in peer.jobs:
                del peer.tasks[name]
                return
            peer.wake[name] = self.now + 2
            peer.tasks[name] = settlement.settle(peer.jobs[name], peer.identity)
            peer.answers[name] = None
            return
        answer = self.perform(peer, name, effect)
        if self.keepers.looked(effect) and self.chance(0.4):
            peer.paused_until = self.now + self.random.random() * 8
        if self._looked_behind_stop(peer, effect) and self.chance(0.3):
            peer.paused_until = self.now + self.random.random() * 5
        if self.chance(0.004):
            self.crash(peer)
            return
        peer.answers[name] = answer

    def _settled(self, peer: Peer, name: str, outcome: Outcome) -> None:
        """The job has its outcome; the job that takes what it left behind may begin."""
        peer.outcomes[name] = peer.sources[name] = outcome
        del peer.tasks[name]
        taker = self.faults.taker
        if name == "a" and taker in peer.jobs:
            job = peer.jobs[taker]
            steps = (
                settlement.settle(job, peer.identity)
                if outcome.status in GOOD_STATES
                else settlement.skip(job, outcome)
            )
            peer.tasks[taker] = steps
            peer.answers[taker] = None

    def _looked_behind_stop(self, peer: Peer, effect: Effect[fx.Performer, object]) -> bool:
        """Whether somebody looks for claims of a stopped run now: the maker of a later claim must see the stop."""
        return isinstance(effect, fx.ListKeys) and effect.prefix.endswith("/claim/") and peer.run.id in self.stops

    def perform(self, peer: Peer, name: str, effect: Effect[fx.Performer, A]) -> A:
        """The answer to one effect of one task of a coordinator."""
        return on_the_spot(effect.perform(PeerPerformer(self, peer, name)))

    # -- the judge --------------------------------------------------------------------------------

    def check_put(self, peer: Peer, effect: fx.PutNew) -> None:
        if peer.attendant is not None:
            raise Violation(f"{peer.identity.id} writes {effect.key} while {peer.attendant.id} attends the run")
        if "/claim/" in effect.key:
            nonce = unpack(Claim, effect.key, effect.body).nonce
            if nonce not in self.supervisors:
                raise Violation(f"{effect.key}: claimed before a slot was held")
        if effect.key.endswith("/end") and unpack(End, effect.key, effect.body).status == "lost":
            self._check_lost(peer, effect)
        if effect.key.endswith("/result"):
            attempt = unpack(Result, effect.key, effect.body).attempt
            manifest = effect.key.removesuffix("result") + f"a/{attempt:06d}/manifest"
            buried = effect.key.removesuffix("result") + "tomb" in self.objects
            if manifest not in self.objects and not buried and not self.faults.touched(manifest):
                raise Violation(f"{effect.key}: the result comes before what it names")

    def _check_lost(self, peer: Peer, effect: fx.PutNew) -> None:
        """Whether a coordinator may call an attempt lost: never one whose host has just answered it."""
        nonce = unpack(End, effect.key, effect.body).nonce
        supervisor = self.supervisors[nonce]
        vanished = supervisor.report is not None and supervisor.report.vanished
        if not self.retries and not vanished:
            raise Violation(f"{effect.key}: called lost without anybody's word")
        if peer.foreign.get(nonce, Sighting.RESTARTED) is not Sighting.RESTARTED:
            raise Violation(f"{effect.key}: called lost, and it is another account's on a host that answers")
        if nonce in peer.foreign and supervisor.verdict == "started" and supervisor.report is None:
            raise Violation(f"{effect.key}: called lost for a restart, and it lives")

    def check_start(self, claim: Claim) -> None:
        """At the moment of a start: the claim stands, and no other attempt of its generation runs or succeeded."""
        key = next((k for k, body in self.objects.items() if "/claim/" in k and _nonce(k, body) == claim.nonce), None)
        if key is None:
            raise Violation(f"{claim.nonce} starts without a claim")
        if self._is_lost(claim.nonce):
            return  # somebody said so between the look and the start: it is one of two now, and known to be
        folder = key.rpartition("/")[0] + "/"
        for other, body in self.objects.items():
            if other.startswith(folder) and other != key:
                supervisor = self.supervisors.get(_nonce(other, body))
                if supervisor is not None and supervisor.verdict == "started" and not self._is_lost(supervisor.nonce):
                    report = supervisor.report
                    if report is None or report.succeeded:
                        raise Violation(f"{key} starts while {other} runs or has succeeded")
        if not self._was_wanted(key, folder.removesuffix("claim/")):
            raise Violation(
                f"{key} starts although every run that waited for it was over or stopped before it was claimed"
            )

    def _may_live(self, nonce: str) -> bool:
        """Whether the attempt was called lost and no coordinator that watched it is left: the next one that reaches the
        host ends it."""
        return self._is_lost(nonce) and not any(
            nonce in task for peer in self.peers if not peer.crashed for task in peer.tasks
        )

    def _is_lost(self, nonce: str) -> bool:
        """Whether the attempt was called lost: by a person, or where `retry` allows it."""
        for key, body in self.objects.items():
            if key.endswith("/end") and unpack(End, key, body).nonce == nonce:
                return unpack(End, key, body).status == "lost"
        return False

    def _was_wanted(self, claim: str, generation: str) -> bool:
        """Whether some run that waits for this generation of a job had no outcome of it when it was claimed, and had
        not been asked to stop."""
        folder = f"{generation}wants/"
        wants = {RunId(key.removeprefix(folder)): body for key, body in self.objects.items() if key.startswith(folder)}
        found = {run: unpack(Want, folder, body) for run, body in wants.items()}
        ends = [
            (PROJECT.run(run).final if want.again else PROJECT.run(run).job(want.workflow), PROJECT.run(run).stop(None))
            for run, want in found.items()
            if not want.left
        ]
        claimed = self.born[claim]
        if any(set(found) & {peer.run.id} and "a" in peer.again.values() for peer in self.peers if not peer.crashed):
            return True
        return any(all(self.born.get(key, self.turns + 1) > claimed for key in keys) for keys in ends)

    def _done(self, run: RunRecord) -> bool:
        return all(PROJECT.run(run.id).job(spec.workflow) in self.written for spec in run.plan.jobs)

    def _all_done(self) -> bool:
        running = any(peer.tasks and not peer.crashed for peer in self.peers) or self.keepers.busy
        return all(self._done(run) for run in self.runs) and (not running or self.turns > LIMIT - 2)

    def check_end(self) -> None:
        """Everything has an outcome: hold the whole bucket against the whole host."""
        self._check_claims()
        self.faults.check_runs()
        for supervisor in self.supervisors.values():
            alone = supervisor.verdict == "started" and supervisor.report is None
            if alone and not self._may_live(supervisor.nonce) and not self._is_replacement(supervisor.nonce):
                raise Violation(f"{supervisor.nonce} still runs and nobody looks after it")
        for run in self.runs:
            for spec in run.plan.jobs:
                key = PROJECT.run(run.id).job(spec.workflow)
                outcome = unpack(Outcome, key, self.written[key])
                self._check_outcome(run, outcome)
        for peer in self.peers:
            for name, outcome in peer.outcomes.items():
                recorded = self.written[PROJECT.run(peer.run.id).job(WorkflowName(name))]
                forgotten = PROJECT.run(peer.run.id).record not in self.objects
                if pack(outcome) != recorded and not forgotten:
                    raise Violation(f"{peer.identity.id} was told another outcome of {name} than the bucket holds")

    def _check_claims(self) -> None:
        folders: dict[str, list[int]] = {}
        for key in self.objects:
            if "/claim/" in key and key.partition("claim/")[0] + "tomb" not in self.objects:
                folder, _, number = key.rpartition("/")
                folders.setdefault(folder, []).append(int(number))
        for folder, numbers in folders.items():
            if sorted(numbers) != list(range(1, len(numbers) + 1)):
                raise Violation(f"{folder}: attempts are not numbered without gaps: {sorted(numbers)}")

    def _check_outcome(self, run: RunRecord, outcome: Outcome) -> None:
        keys = PROJECT.job(Fingerprint(outcome.fingerprint), outcome.generation)
        skipped = outcome.workflow == self.faults.taker and outcome.reason.startswith("not run")
        if outcome.status is JobStatus.STOPPED and run.id not in self.stops and not skipped:
            raise Violation(f"{run.name} is stopped and nobody asked")
        if outcome.status in (JobStatus.SUCCEEDED, JobStatus.REUSED):
            result = unpack(Result, keys.result, self.written[keys.result])
            attempt = keys.attempt(result.attempt)
            claim = unpack(Claim, attempt.claim, self.written[attempt.claim])
            supervisor = self.supervisors[claim.nonce]
            if supervisor.report is None or not supervisor.report.succeeded:
                raise Violation(f"{run.name} {outcome.workflow}: succeeded without a job that did")
            # Whoever reads a result back that was damaged meanwhile does not find its own.
            end = self.written.get(attempt.end) if not self.faults.touched(keys.result) else None
            if end is not None and unpack(End, attempt.end, end).status not in ("succeeded", "lost"):
                raise Violation(f"{attempt.end}: the result's own attempt is not called succeeded")
        if outcome.reason.startswith("given up"):
            if not self.faults.struck:
                raise Violation(f"{run.name} {outcome.workflow}: given up, and nothing was damaged")
            return
        if outcome.status in (JobStatus.FAILED, JobStatus.LOST):
            want = unpack(Want, "want", self.written[keys.want(run.id)])
            ends = [self._end_of(keys.attempt(number)) for number in range(want.ended + 1, outcome.attempt + 1)]
            if not any(end and end.status in ("failed", "lost", "void") for end in ends):
                raise Violation(f"{run.name} {outcome.workflow}: failed without an attempt since it came that did")

    def _is_replacement(self, nonce: str) -> bool:
        """Whether the attempt makes anew what a run has an outcome of: when the run came to its end without it, on a
        host that had the bytes, it runs to its own end, and its claim stands for whoever needs the result next."""
        key = next(k for k, body in self.objects.items() if "/claim/" in k and _nonce(k, body) == nonce)
        wants = [body for k, body in self.objects.items() if k.startswith(key.partition("claim/")[0] + "wants/")]
        return any(unpack(Want, "want", body).again for body in wants)

    @staticmethod
    def nonce_of(key: str, body: bytes) -> str:
        """The nonce of a claim."""
        return _nonce(key, body)

    def _end_of(self, attempt: Any) -> End | None:
        body = self.written.get(attempt.end)
        return unpack(End, attempt.end, body) if body else None


def _nonce(key: str, body: bytes) -> str:
    return unpack(Claim, key, body).nonce
