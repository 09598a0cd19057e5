"""What a store does to the simulated world beside losing answers: lists that come late, and objects that are damaged.

A late list lacks what was created lately, and may show what was deleted lately. Damage strikes what a result names, the
result itself, and other records of a generation; a host may have the bytes of a damaged pack all the same. The judge
counts: a late list never costs a second run of a job, and damage costs one each time at most.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from dstack.app.effects.answers import Collected, DamagedInput
from dstack.app.protocol import settlement
from dstack.app.protocol.jobs import Job
from dstack.core.artifacts import manifests
from dstack.core.artifacts.pieces import pack_name
from dstack.core.format.keys import ProjectKeys
from dstack.core.format.records import Outcome, Result, unpack
from dstack.core.lifecycle import GOOD_STATES
from dstack.errors import DamagedInputError, DamagedObjectError
from dstack.model import Entry, EntryKind, Fingerprint, Manifest, WorkflowName
from tests.support.simulator.keepers import Violation

if TYPE_CHECKING:
    from tests.support.simulator.world import Peer, World

CONTENT = b"bytes"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PACK = pack_name([(SHA256, len(CONTENT))])
MANIFEST = Manifest(
    entries=(Entry(path="out", kind=EntryKind.FILE, mode=0o644, size=len(CONTENT), sha256=SHA256, pack=PACK),),
    partial=False,
)
BODY = manifests.encode(MANIFEST)
COLLECTED = Collected(manifest=hashlib.sha256(BODY).hexdigest(), digest=manifests.content_digest(MANIFEST))
LATEST = 8.0
"""Seconds that a list may be behind, at most."""
KINDS = ("flip-pack", "cut-pack", "empty-pack", "no-pack", "flip-manifest", "no-manifest", "cut-result")


class StoreFaults:
    """Part of a world. `late` is the part of lists that come late; `strikes` how often something is damaged."""

    def __init__(self, world: World, project: ProjectKeys) -> None:
        self.world = world
        self.project = project
        draw = world.random.random()
        self.late = world.random.uniform(0.3, 0.7) if draw < 0.4 else 0.0
        self.strikes = world.random.choice((0.02, 0.1)) if 0.25 < draw < 0.6 else 0.0
        self.made: dict[str, float] = {}
        """When each object was created last."""
        self.deleted: dict[str, float] = {}
        self.struck: list[str] = []
        """Objects that were damaged, each time."""

    # -- lists ------------------------------------------------------------------------------------

    def listed(self, prefix: str) -> list[str]:
        """The keys below a folder, as the store tells them now."""
        world = self.world
        there = {key for key in world.objects if key.startswith(prefix)}
        if self.late and world.random.random() < self.late:
            since = world.now - world.random.uniform(0.0, LATEST)
            there = {key for key in there if self.made.get(key, 0.0) <= since}
            there |= {key for key, at in self.deleted.items() if key.startswith(prefix) and at > since}
        return sorted(there)

    def sizes(self, prefix: str) -> dict[str, int]:
        return {key: len(self.world.objects.get(key, CONTENT)) for key in self.listed(prefix)}

    def reaches(self, key: str, size: int) -> bool:
        return len(self.world.objects.get(key, b"")) >= size

    # -- damage -----------------------------------------------------------------------------------

    def strike(self) -> None:
        """Perhaps something that a result names is damaged now."""
        world = self.world
        if not self.strikes or not world.chance(self.strikes):
            return
        results = [key for key in world.objects if key.endswith("/result")]
        if not results:
            return
        result = world.random.choice(sorted(results))
        generation = result.removesuffix("result")
        if generation in {_generation_of(key) for key in self.struck}:
            return
        try:
            attempt = f"{generation}a/{unpack(Result, result, world.objects[result]).attempt:06d}/"
        except DamagedObjectError:
            return
        kind = world.random.choice(KINDS)
        pack, manifest = f"{attempt}data/{PACK}", f"{attempt}manifest"
        match kind:
            case "flip-pack":
                self._put(pack, CONTENT.swapcase())
            case "cut-pack":
                self._put(pack, CONTENT[:-2])
            case "empty-pack":
                self._put(pack, b"")
            case "no-pack":
                self._put(pack, None)
            case "flip-manifest":
                self._put(manifest, BODY.swapcase())
            case "no-manifest":
                self._put(manifest, None)
            case "cut-result":
                self._put(result, world.objects[result][:-9])

    def _put(self, key: str, body: bytes | None) -> None:
        self.struck.append(key)
        if body is None:
            self.world.objects.pop(key, None)
        elif key in self.world.objects:
            self.world.objects[key] = body

    def touched(self, key: str) -> bool:
        """Whether something in the generation of this key was damaged."""
        return _generation_of(key) in {_generation_of(each) for each in self.struck}

    # -- jobs that take what others left behind ----------------------------------------------------

    @property
    def taker(self) -> str:
        """The workflow that takes the artifacts of `a`; "" where none does."""
        return "b" if self.strikes else ""

    def inputs(self, peer: Peer, workflow: str) -> DamagedInput | None:
        """What `Prepare` finds of the job's inputs; the host may have the bytes already."""
        if workflow != self.taker or self.world.random.random() < 0.2:
            return None
        source = peer.sources["a"]
        keys = self.project.job(Fingerprint(source.fingerprint), source.generation)
        attempt = keys.attempt(source.attempt)
        for key, wanted in ((keys.result, None), (attempt.manifest, BODY), (attempt.pack(PACK), CONTENT)):
            body = self.world.objects.get(key)
            try:
                if body is not None and wanted is None:
                    unpack(Result, key, body)
            except DamagedObjectError:
                body = None
            if body is None or (wanted is not None and body != wanted):
                return DamagedInput(workflow=WorkflowName("a"), key=key, why=f"{key} is damaged")
        return None

    def damaged(self, peer: Peer, name: str, error: DamagedObjectError) -> None:
        """As `coordination/run.py` does: what the job takes is made anew, or the job is given up."""
        job = peer.jobs[name]
        peer.answers[name] = None
        maker = peer.again.get(name) or (name if not isinstance(error, DamagedInputError) else "a")
        if isinstance(error, DamagedInputError):
            source = peer.sources[maker]
            again = Job(
                run=peer.run,
                spec=peer.jobs[maker].spec,
                fingerprint=peer.jobs[maker].fingerprint,
                project=self.project,
                above=source.generation,
                again=True,
            )
            peer.again[name] = maker
            peer.tasks[name] = settlement.make_again(
                again, peer.identity, source, taker=WorkflowName(name), why=str(error)
            )
            return
        peer.again.pop(name, None)
        peer.tasks[name] = settlement.give_up(job, settlement.JobDamage(key=error.key, reason=f"given up: {error}"))

    def replaced(self, peer: Peer, name: str, found: Outcome | None) -> None:
        """The steps of `settlement.make_again` are at their end: the taker goes on."""
        maker = peer.again.pop(name)
        peer.answers[name] = None
        if found is None or found.status in GOOD_STATES:
            if found is not None:
                peer.sources[maker] = found
            peer.tasks[name] = settlement.settle(peer.jobs[name], peer.identity)
            return
        loss = settlement.JobDamage(key="a", reason=f"given up: made anew it {found.status}")
        peer.tasks[name] = settlement.give_up(peer.jobs[name], loss)

    # -- the judge --------------------------------------------------------------------------------

    def check_runs(self) -> None:
        """Each job came to a good end at most once for each generation that somebody had a reason to open."""
        world = self.world
        good: dict[str, int] = {}
        for key, body in world.written.items():
            if "/claim/" in key:
                supervisor = world.supervisors.get(world.nonce_of(key, body))
                if supervisor is not None and supervisor.report is not None and supervisor.report.succeeded:
                    folder = key.split("/")[3]
                    good[folder] = good.get(folder, 0) + 1
        for print_, count in good.items():
            lost = sum(key.endswith("/end") and b'"lost"' in body for key, body in world.written.items())
            tombs = sum(f"/{print_}/" in key and key.endswith("/tomb") for key in world.written)
            hurt = sum(f"/{print_}/" in key for key in self.struck)
            fresh = sum(world.fresh.values())
            if count > 1 + lost + tombs + hurt + fresh:
                raise Violation(f"{print_[:8]} ran to a good end {count} times: {tombs} tombs, {hurt} damages")


def _generation_of(key: str) -> str:
    return "/".join(key.split("/")[:5])
