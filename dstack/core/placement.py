"""Which hosts may take a job, and which is asked first: a pure decision, with the reason for a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
class RunLoad:
    """How the run stands when a job becomes ready, by host: inputs of the job made there, jobs of the run at work."""

    inputs: Mapping[str, int]
    running: Mapping[str, int] = field(default_factory=dict)


TURN_S = 2.0
"""Seconds that a host lets each host before it have for taking a job."""


def turn(spec: JobSpec, peers: Sequence[Peer], standing: RunLoad, *, job: str, me: str) -> float:
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
    return TURN_S * before


def no_host_reason(spec: JobSpec, facts: Mapping[str, HostFacts]) -> str | None:
    """Why none of the hosts can ever run the job, all reasons in one line; None when one can."""
    reasons = {name: misfit(spec, fact) for name, fact in facts.items()}
    if not reasons or any(reason is None for reason in reasons.values()):
        return None
    return "; ".join(_reasons_text(reasons))


@dataclass(frozen=True, slots=True, kw_only=True)
class AwayHost:
    """A host to which no connection stands. `why` is the error of the last try to make one, "" before its first end."""

    why: str = ""
    refused: bool = False
    """Whether the host answered, and cannot be used as it is: its key is not confirmed, say, or it has no Python."""
    seconds: float = 0.0
    """For how long every try has failed."""
    facts: HostFacts | None = None
    """What the host was when it answered last; None for a host that never did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """The prospect of a job that no connected host can run. Texts are one line each, and the same from look to look.

    `note` says what the job waits for, and why. `refusal` says why the job need not be waited for any longer: no host
    that is away has shown that it can run the job, and each had its time; "" while that is not so. `likely`: a host
    that is away has shown once that it can run the job. `early`: the first try to reach a host has not ended yet.
    """

    note: str
    refusal: str = ""
    likely: bool = False
    early: bool = False


NAMED_HOSTS = 3
"""Hosts that are named where there may be many."""


def names_text(names: Sequence[str]) -> str:
    """Names of hosts in a few words."""
    rest = len(names) - NAMED_HOSTS
    return ", ".join(names[:NAMED_HOSTS]) + (f" and {rest} more" if rest > 0 else "")


def prospect(
    spec: JobSpec, present: Mapping[str, HostFacts], away: Mapping[str, AwayHost], *, limit: float
) -> Prospect | None:
    """What becomes of a job among these hosts, None where one that is present can run it.

    A host that showed once that it can run the job is waited for, however long: it may come back, and its silence is
    not its end. A host that never answered in `limit` seconds of tries has given no reason to wait for it, as soon as
    any host has answered: until then the fault may be this machine's.
    """
    reasons = {name: misfit(spec, facts) for name, facts in present.items()}
    if None in reasons.values():
        return None
    seen = {name: misfit(spec, host.facts) for name, host in away.items() if host.facts is not None}
    unfit = {name: reason for name, reason in {**reasons, **seen}.items() if reason is not None}
    unusable = {name: host for name, host in away.items() if host.facts is None and host.refused}
    awaited = {name: host for name, host in away.items() if name not in unfit and name not in unusable}
    likely = None in seen.values()
    # Where no host ever answered, the fault may be this machine's.
    heard = bool(present or seen)
    silent = heard and not likely and all(host.seconds >= limit for host in awaited.values())
    why = "; ".join([*_reasons_text(unfit), *(host.why for _, host in sorted(unusable.items()))])
    note = f"no host can run it: {why}"
    early = not all(host.why for host in awaited.values())
    if awaited:
        note = f"waits for {names_text(sorted(awaited))}, which {_away_text(len(awaited), early=early)}"
        note = f"{note}; no other host can run it: {why}" if why else note
    return Prospect(
        note=note,
        refusal="; ".join([why, *_given_up_texts(awaited, limit)]) if silent else "",
        likely=likely,
        early=early,
    )


def _given_up_texts(awaited: Mapping[str, AwayHost], limit: float) -> list[str]:
    """Why hosts were given up: of many, the first with their reasons and the number of the others."""
    told = [f"{host.why or name}, tried for {limit:.0f} s" for name, host in sorted(awaited.items())]
    rest = len(told) - NAMED_HOSTS
    return [*told[:NAMED_HOSTS], f"and {rest} more, tried for {limit:.0f} s"] if rest > 0 else told


def _away_text(count: int, *, early: bool) -> str:
    if early:
        return "has not answered yet" if count == 1 else "have not answered yet"
    return "cannot be reached"


def peers_note(spec: JobSpec, why: str, peers: Sequence[Peer], *, user: str) -> str:
    """What a job waits for that no host of this coordinator can run, as `why` says; `peers` have the run too."""
    able = [str(peer.name) for peer in peers if misfit(spec, peer.facts) is None]
    if able:
        return f"waits for {names_text(able)}, which {'has' if len(able) == 1 else 'have'} the run too; {why}"
    if peers:
        return f"waits for a coordinator of {user} that reaches a host which can run it; {why}"
    return f"no host can run it: {why}"


def _reasons_text(reasons: Mapping[str, str | None]) -> list[str]:
    """The reasons of hosts, each with its host, in one order for everybody."""
    return [f"{name} {reason}" for name, reason in sorted(reasons.items())]


def only_chances(
    specs: Iterable[JobSpec], present: Mapping[str, HostFacts], away: Mapping[str, HostFacts | None]
) -> Mapping[str, str]:
    """The hosts that are away and without which a job of `specs` can be run nowhere, each with the first such job.

    `away` has what a host was when it answered last, None for a host that never did, which may be anything.
    """
    found: dict[str, str] = {}
    for spec in specs:
        if any(misfit(spec, facts) is None for facts in present.values()):
            continue
        for name, facts in away.items():
            if facts is None or misfit(spec, facts) is None:
                found.setdefault(name, spec.workflow)
    return found
