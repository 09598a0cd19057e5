"""Which hosts may take a job, and which is asked first: a pure decision, with the reason for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from dstack.model import Host, HostFacts, HostName, Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A host that was reached. `busy` counts the jobs that this coordinator holds or runs there."""

    host: Host
    facts: HostFacts
    busy: int = 0
    inputs: int = 0
    """How many of the job's inputs were made on this host."""


def slots_of(host: Host, facts: HostFacts) -> int:
    """Jobs at a time: as the inventory says, else one for each GPU, else half the cores."""
    if host.slots is not None:
        return host.slots
    return sum(gpu.count for gpu in facts.gpus) or max(1, facts.cpus // 2)


def misfit(wanted: Resources, facts: HostFacts) -> str | None:
    """Why a host can never run a job that asks for this; None when it can."""
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


def rank(wanted: Resources, candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """Names of the hosts that fit, the best first: free slots, then inputs made there, then the emptiest."""

    def order(candidate: Candidate) -> tuple[bool, int, float]:
        slots = slots_of(candidate.host, candidate.facts)
        load = candidate.busy / slots
        return (candidate.busy >= slots, -candidate.inputs, load)

    fitting = [candidate for candidate in candidates if misfit(wanted, candidate.facts) is None]
    return tuple(candidate.host.name for candidate in sorted(fitting, key=order))


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A host whose own coordinator works on the run too, as it was when the run was handed out."""

    name: HostName
    facts: HostFacts


TURN = 2.0
"""Seconds that a host lets each host before it have for taking a job."""


def turn(wanted: Resources, peers: Sequence[Peer], inputs: Mapping[str, int], *, job: str, me: str) -> float:
    """Seconds, of its own clock, that host `me` waits before it asks for a slot for the job.

    Every coordinator of the run comes to the same order without asking anybody: most inputs made there first (`inputs`
    counts them by host), then an order that differs from job to job, so that equal jobs spread. Who is full does not
    get to claim, and whoever comes next takes it.
    """

    def order(peer: Peer) -> tuple[int, str]:
        return (-inputs.get(peer.name, 0), sha256(f"{job} {peer.name}".encode()).hexdigest())

    fitting = sorted((peer for peer in peers if misfit(wanted, peer.facts) is None), key=order)
    before = next((rank for rank, peer in enumerate(fitting) if peer.name == me), 0)
    return TURN * before


def nowhere(wanted: Resources, facts: Mapping[str, HostFacts]) -> str | None:
    """Why none of the hosts can ever run the job, all reasons in one line; None when one can."""
    reasons = {name: misfit(wanted, fact) for name, fact in facts.items()}
    if not reasons or any(reason is None for reason in reasons.values()):
        return None
    return "; ".join(f"{name} {reason}" for name, reason in sorted(reasons.items()))
