"""Which hosts may take a job, and which is asked first: a pure decision, with the reason for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from dstack.model import Host, HostFacts, HostName, JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A host that was reached. `busy` counts the jobs that this coordinator holds or runs there."""

    host: Host
    facts: HostFacts
    busy: int = 0
    inputs: int = 0
    """How many of the job's inputs were made on this host."""
    has_image: bool = False
    """Whether Docker has the job's image here."""


def slots_of(host: Host, facts: HostFacts) -> int:
    """Jobs at a time: as the inventory says, else one for each GPU, else half the cores."""
    if host.slots is not None:
        return host.slots
    return sum(gpu.count for gpu in facts.gpus) or max(1, facts.cpus // 2)


def misfit(spec: JobSpec, facts: HostFacts) -> str | None:
    """Why a host cannot run the job as long as it is what it is; None when it can."""
    wanted = spec.resources
    if spec.image is not None and not facts.docker:
        return "has no Docker that its user can use, `image:` needs it"
    if wanted.cpu is not None and wanted.cpu > facts.cpus:
        return f"has {facts.cpus} cores, {wanted.cpu} are asked for"
    if wanted.memory is not None and wanted.memory > facts.memory:
        return f"has {facts.memory >> 20} MiB of memory, {wanted.memory >> 20} are asked for"
    if wanted.gpu is None or wanted.gpu.count == 0:
        return None
    fitting = [
        gpu
        for gpu in facts.gpus
        if (wanted.gpu.name is None or wanted.gpu.name.lower() in (gpu.name or "").lower())
        and (wanted.gpu.memory is None or (gpu.memory or 0) >= wanted.gpu.memory)
    ]
    count = sum(gpu.count for gpu in fitting)
    if count < wanted.gpu.count:
        kind = f" {wanted.gpu.name}" if wanted.gpu.name else ""
        return f"has {count} fitting GPUs, {wanted.gpu.count}{kind} are asked for"
    return None


def rank(spec: JobSpec, candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """Names of the hosts that fit, the best first: free slots, then inputs made there, image there, the emptiest."""

    def order(candidate: Candidate) -> tuple[bool, int, bool, float]:
        slots = slots_of(candidate.host, candidate.facts)
        load = candidate.busy / slots
        return (candidate.busy >= slots, -candidate.inputs, not candidate.has_image, load)

    fitting = [candidate for candidate in candidates if misfit(spec, candidate.facts) is None]
    return tuple(candidate.host.name for candidate in sorted(fitting, key=order))


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A host whose own coordinator works on the run too, as it was when the run was handed out."""

    name: HostName
    facts: HostFacts
    slots: int = 1
    """Jobs that it runs at a time."""
    images: tuple[str, ...] = ()
    """Those of the run's images that Docker had there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How the run stands when a job becomes ready, by host: inputs of the job made there, jobs of the run at work."""

    inputs: Mapping[str, int]
    running: Mapping[str, int] = field(default_factory=dict)


TURN = 2.0
"""Seconds that a host lets each host before it have for taking a job."""


def turn(spec: JobSpec, peers: Sequence[Peer], standing: Standing, *, job: str, me: str) -> float:
    """Seconds, of its own clock, that host `me` waits before it asks for a slot for the job.

    Every coordinator of the run comes to the same order without asking anybody: most inputs made there first, then
    where the image is, then the host with the least of the run's own jobs for its slots, then an order that differs
    from job to job, so that equal jobs spread. Who is full does not get to claim, and whoever comes next takes it; so
    coordinators that see the run a moment apart, and come to other orders, do no harm.
    """

    def order(peer: Peer) -> tuple[int, bool, float, str]:
        return (
            -standing.inputs.get(peer.name, 0),
            spec.image is not None and spec.image not in peer.images,
            standing.running.get(peer.name, 0) / peer.slots,
            sha256(f"{job} {peer.name}".encode()).hexdigest(),
        )

    fitting = sorted((peer for peer in peers if misfit(spec, peer.facts) is None), key=order)
    before = next((rank for rank, peer in enumerate(fitting) if peer.name == me), 0)
    return TURN * before


def nowhere(spec: JobSpec, facts: Mapping[str, HostFacts]) -> str | None:
    """Why none of the hosts can ever run the job, all reasons in one line; None when one can."""
    reasons = {name: misfit(spec, fact) for name, fact in facts.items()}
    if not reasons or any(reason is None for reason in reasons.values()):
        return None
    return "; ".join(f"{name} {reason}" for name, reason in sorted(reasons.items()))
