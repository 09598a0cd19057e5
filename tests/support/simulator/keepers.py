"""Who keeps house in the simulated world: collectors that prune whatever they like, and readers that pull artifacts.

A collector has no policy here: any generation and any run may be what it wants to remove, at any moment. It may die
between two objects. The judge sees every single deletion.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dstack.app.effects import catalogue as fx
from dstack.app.effects.answers import Liveness
from dstack.app.effects.steps import Steps, ask, on_the_spot
from dstack.app.protocol import prune_steps
from dstack.core.artifacts import manifests
from dstack.core.format.keys import JobKeys, ProjectKeys
from dstack.core.format.records import Coordinator, Final, Outcome, Pin, Result, Tomb, pack, unpack
from dstack.core.lifecycle import GOOD_STATES
from dstack.model import Fingerprint, Nonce, RunId, RunStatus
from dstack.ports import Put
from tests.support.simulator.world_reader import WorldReader

if TYPE_CHECKING:
    from tests.support.simulator.world import World

READERS = "reader"


class Violation(AssertionError):
    """The protocol broke a promise."""


@dataclass
class Keeper:
    """One process that prunes or pulls."""

    name: str
    steps: Steps[fx.BucketPerformer, object] = field(init=False)
    answer: object = None
    wake: float = 0.0
    holds: str = ""
    """The folder of the generation that it was told it may read."""
    crashed: bool = False


class KeeperPerformer(WorldReader):
    """A `BucketPerformer`: the effects of one keeper."""

    def __init__(self, keepers: Keepers, keeper: Keeper) -> None:
        super().__init__(keepers.world)
        self.keepers = keepers
        self.keeper = keeper

    async def put_new(self, effect: fx.PutNew, /) -> Put:
        there = effect.key in self.world.objects
        self.world.write(effect.key, effect.body)
        if self.world.chance(0.1):
            return Put.UNKNOWN
        return Put.EXISTS if there else Put.CREATED

    async def pause(self, effect: fx.Pause, /) -> None:
        self.keeper.wake = self.world.now + effect.seconds

    async def alive(self, effect: fx.Alive, /) -> Liveness:
        return Liveness.of(not self.keepers.known[effect.coordinator.id].crashed)

    async def delete(self, effect: fx.Delete, /) -> None:
        self.keepers.delete(self.keeper, effect.keys)


class Keepers:
    """Part of a world: moves collectors and readers, and judges what they do."""

    def __init__(self, world: World, project: ProjectKeys, *, active: bool) -> None:
        self.world = world
        self.project = project
        self.active = active
        self.rate = world.random.choice((0.02, 0.1, 0.3)) if active else 0.0
        self.alive: list[Keeper] = []
        self.gone: set[str] = set()
        self.hot = ""
        """The generation at which somebody looked last."""
        self.known: dict[str, Keeper] = {}

    @property
    def busy(self) -> bool:
        return bool(self.alive)

    def looked(self, effect: object) -> bool:
        """Whether somebody looks for a tomb now: the moment around which everything turns."""
        if not self.active or not isinstance(effect, fx.Read) or not effect.key.endswith("/tomb"):
            return False
        self.hot = _generation(effect.key)
        return True

    def turn(self) -> bool:
        """Perhaps one effect of one keeper -> whether there was one."""
        if not self.active:
            return False
        self._finals()
        random = self.world.random
        if self.world.chance(self.rate * 0.2):
            self._begin()
        ready = [keeper for keeper in self.alive if keeper.wake <= self.world.now]
        if not ready or random.random() > 0.4:
            return False
        self._step(random.choice(ready))
        return True

    def _finals(self) -> None:
        """Somebody sums up a run whose jobs all have an outcome."""
        for run in self.world.runs:
            keys = self.project.run(run.id)
            done = all(keys.job(spec.workflow) in self.world.objects for spec in run.plan.jobs)
            if done and keys.final not in self.world.written and self.world.random.random() < 0.05:
                final = Final(
                    nonce="f", run=run.name, user=run.user, submitted=0.0, workflow=run.workflow,
                    status=RunStatus.SUCCEEDED, ended=0.0,
                )  # fmt: skip
                self.world.write(keys.final, pack(final))

    def _begin(self) -> None:
        world, random = self.world, self.world.random
        name = f"k{len(self.known) + 1}"
        folders = sorted({_generation(key) for key in world.objects if _generation(key)})
        if self.hot and random.random() < 0.6:
            folders = [self.hot]
        draw = random.random()
        if draw < 0.2:
            run = random.choice(world.runs).id
            keeper = Keeper(name=name)
            keeper.steps = prune_steps.forget_run(self.project, run)
        elif not folders:
            return
        elif draw < 0.4:
            folder = random.choice(folders)
            keeper = Keeper(name=name)
            keeper.steps = self._read(keeper, _keys(self.project, folder))
        else:
            folder = random.choice(folders)
            tomb = Tomb(nonce=name, user="u")
            keeper = Keeper(name=name)
            keeper.steps = prune_steps.remove_generation(self.project, _keys(self.project, folder), tomb, set())
        self.known[name] = keeper
        self.alive.append(keeper)

    def _read(self, keeper: Keeper, keys: JobKeys) -> Steps[fx.BucketPerformer, None]:
        """`artifacts pull`: what it was told that it holds must stay until it lets go."""
        me = Coordinator(id=keeper.name, user="u", machine="m", boot_id="b", pid=1, lock="/x")
        nonce = Nonce(f"{READERS}-{keeper.name}")
        if not (yield from prune_steps.pin_for_reader(keys, Pin(nonce=nonce, reader=me))):
            return
        keeper.holds = keys.folder
        for _ in range(self.world.random.randint(1, 6)):
            yield from ask(fx.Pause(1.0))
        keeper.holds = ""
        yield from prune_steps.unpin_reader(keys, nonce)

    def _step(self, keeper: Keeper) -> None:
        if self.world.chance(0.02):
            self._crash(keeper)
            return
        try:
            effect = keeper.steps.send(keeper.answer)
        except StopIteration:
            self.alive.remove(keeper)
            return
        if self.world.chance(0.05):
            keeper.wake = self.world.now + self.world.random.random() * 10
        keeper.answer = on_the_spot(effect.perform(KeeperPerformer(self, keeper)))

    def _crash(self, keeper: Keeper) -> None:
        keeper.crashed = True
        keeper.holds = ""
        if keeper in self.alive:
            self.alive.remove(keeper)

    def delete(self, keeper: Keeper, keys: tuple[str, ...]) -> None:
        """One after the other, in any order; the keeper may die between two."""
        order = list(keys)
        self.world.random.shuffle(order)
        for key in order:
            if self.world.chance(0.05):
                self._crash(keeper)
                return
            self.check_delete(key)
            self.world.objects.pop(key, None)
            self.world.faults.deleted[key] = self.world.now
            self.gone.add(key)
            self._check_result(key)

    # -- the judge --------------------------------------------------------------------------------

    def check_delete(self, key: str) -> None:
        """Nothing goes that somebody was told he may use."""
        folder = _generation(key)
        if not folder or "/pins/" in key:
            return
        for keeper in self.alive:
            if keeper.holds == folder:
                raise Violation(f"{key} is deleted while {keeper.name} reads it")
        for run in self.world.runs:
            if self._uses(run.id, folder):
                raise Violation(f"{key} is deleted, and {run.name}, which has not ended, takes it as input")

    def _uses(self, run: RunId, folder: str) -> bool:
        keys = self.project.run(run)
        if keys.final in self.world.written:
            return False
        for key, body in self.world.objects.items():
            if key.startswith(f"{keys.folder}jobs/"):
                outcome = unpack(Outcome, key, body)
                generation = self.project.job(Fingerprint(outcome.fingerprint), outcome.generation)
                if outcome.status in GOOD_STATES and generation.folder == folder:
                    return True
        return False

    def _check_result(self, key: str) -> None:
        """Behind a result nothing is missing, in its whole first life."""
        folder = _generation(key)
        result = f"{folder}result"
        if not folder or result not in self.world.objects:
            return
        born = self.world.born
        if (
            self.world.faults.touched(key)
            or result in self.gone
            or born.get(f"{folder}tomb", born[result]) < born[result]
        ):
            return  # a very late writer's, which nobody sees: the tomb stands
        attempt = _keys(self.project, folder).attempt(unpack(Result, result, self.world.objects[result]).attempt)
        needed = [attempt.manifest]
        body = self.world.objects.get(attempt.manifest)
        if body is not None:
            needed += [attempt.pack(name) for name in manifests.uploads(manifests.decode(attempt.manifest, body))]
        if any(each not in self.world.objects for each in needed):
            raise Violation(f"{key} is deleted before {result}")


def _generation(key: str) -> str:
    """The folder of the generation that a key lies in; "" for any other."""
    parts = key.split("/")
    return "/".join(parts[:5]) + "/" if len(parts) > 5 and parts[2] == "jobs" else ""


def _keys(project: ProjectKeys, folder: str) -> JobKeys:
    parts = folder.rstrip("/").split("/")
    return project.job(Fingerprint(parts[3]), int(parts[4]))
