"""The hosts for a job, and their order: a pure decision, with the reason in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from dstack.model import Host, HostFacts, HostName, JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A host with an open runner. `busy` counts the jobs of this coordinator with a slot there."""

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
    """Why this host can never run the job unless the host itself changes; None when the host can."""
    resources = spec.resources
    if spec.image is not None and not facts.docker:
        return "has no Docker that its user can use, `image:` needs it"
    if resources.cpu is not None and resources.cpu > facts.cpus:
        return f"has {facts.cpus} cores, {resources.cpu} are asked for"
    if resources.memory is not None and resources.memory > facts.memory:
        return f"has {facts.memory >> 20} MiB of memory, {resources.memory >> 20} are asked for"
    if resources.gpu is None or resources.gpu.count == 0:
        return None
    fitting = [
        gpu
        for gpu in facts.gpus
        if (resources.gpu.name is None or resources.gpu.name.lower() in (gpu.name or "").lower())
        and (resources.gpu.memory is None or (gpu.memory or 0) >= resources.gpu.memory)
    ]
    count = sum(gpu.count for gpu in fitting)
    if count < resources.gpu.count:
        kind = f" {resources.gpu.name}" if resources.gpu.name else ""
        return f"has {count} fitting GPUs, {resources.gpu.count}{kind} are asked for"
    return None


def rank(spec: JobSpec, candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """Names of the fitting hosts, the best first: free slots, then inputs made there, image there, the emptiest."""

    def order(candidate: Candidate) -> tuple[bool, int, bool, float]:
        slots = slots_of(candidate.host, candidate.facts)
        load = candidate.busy / slots
        return (candidate.busy >= slots, -candidate.inputs, not candidate.has_image, load)

    fitting = [candidate for candidate in candidates if misfit(spec, candidate.facts) is None]
    return tuple(candidate.host.name for candidate in sorted(fitting, key=order))


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A host with a coordinator of its own for the run, described at the time of the hand-over."""

    name: HostName
    facts: HostFacts
    slots: int = 1
    """The most jobs at a time on this host."""
    images: tuple[str, ...] = ()
    """The images of the run found by Docker there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLoad:
    """How the run stands when a job becomes ready, by host: inputs of the job made there, jobs of the run at work."""

    inputs: Mapping[str, int]
    running: Mapping[str, int] = field(default_factory=dict)


TURN_S = 2.0
"""Seconds for each host ahead in the order, in which only the hosts ahead may take a job."""


def turn(spec: JobSpec, peers: Sequence[Peer], standing: RunLoad, *, job: str, me: str) -> float:
    """Seconds, by its own clock, for which host `me` waits before asking for a slot for the job.

    Every coordinator of the run finds the same order without asking another: most inputs made there first, then the
    hosts with the image, then the host with the least of the run's own jobs for its slots, then an order of each job's
    own, which spreads equal jobs. A full host does not get to claim, and the next in order takes the job. So
    coordinators with a view of the run from different moments, and with different orders, do no harm.
    """

    def order(peer: Peer) -> tuple[int, bool, float, str]:
        return (
            -standing.inputs.get(peer.name, 0),
            spec.image is not None and spec.image not in peer.images,
            standing.running.get(peer.name, 0) / peer.slots,
            # A hash and no random number: every coordinator must find the same order.
            sha256(f"{job} {peer.name}".encode()).hexdigest(),
        )

    fitting = sorted((peer for peer in peers if misfit(spec, peer.facts) is None), key=order)
    # A host that does not fit is in no order: nobody waits for such a host, and the host itself waits for nobody.
    before = next((rank for rank, peer in enumerate(fitting) if peer.name == me), 0)
    return TURN_S * before


def no_host_reason(spec: JobSpec, facts: Mapping[str, HostFacts]) -> str | None:
    """Why no host can ever run the job, all reasons in one line; None when a host can."""
    reasons = {name: misfit(spec, fact) for name, fact in facts.items()}
    if not reasons or any(reason is None for reason in reasons.values()):
        return None
    return "; ".join(_reasons_text(reasons))


@dataclass(frozen=True, slots=True, kw_only=True)
class AwayHost:
    """A host without a connection. `why` is the error of the last try to connect, "" during the first try."""

    why: str = ""
    refused: bool = False
    """Whether the host answered and cannot be used as now set up: an unconfirmed key, say, or a host without Python."""
    seconds: float = 0.0
    """For how long every try has failed."""
    facts: HostFacts | None = None
    """The facts from the last answer of the host; None for a host without any answer so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """The prospect of a job without a fitting connected host. Texts are one line each, and do not change with time.

    `note` says for which hosts the job waits, and why. `refusal` says why waiting has become pointless: no absent host
    has ever shown the means for the job, and each had its time; else "". `likely`: an absent host has shown once the
    means to run the job. `early`: the first try to reach a host has not ended yet.
    """

    note: str
    refusal: str = ""
    likely: bool = False
    early: bool = False


NAMED_HOSTS = 3
"""Hosts named in a text; of further hosts only the number is given."""


def names_text(names: Sequence[str]) -> str:
    """Names of hosts in a few words."""
    rest = len(names) - NAMED_HOSTS
    return ", ".join(names[:NAMED_HOSTS]) + (f" and {rest} more" if rest > 0 else "")


def prospect(
    spec: JobSpec, present: Mapping[str, HostFacts], absent: Mapping[str, AwayHost], *, limit: float
) -> Prospect | None:
    """The prospect of a job among these hosts; None where a connected host can run the job.

    A host with the means for the job is waited for without limit: the host may come back, and silence is not death. A
    host without any answer in `limit` seconds of tries is given up as soon as another host has answered: before any
    answer, the fault may be this machine's.
    """
    reasons = {name: misfit(spec, facts) for name, facts in present.items()}
    if None in reasons.values():
        return None
    absent_misfits = {name: misfit(spec, host.facts) for name, host in absent.items() if host.facts is not None}
    unfit = {name: reason for name, reason in {**reasons, **absent_misfits}.items() if reason is not None}
    unusable = {name: host for name, host in absent.items() if host.facts is None and host.refused}
    possible = {name: host for name, host in absent.items() if name not in unfit and name not in unusable}
    likely = None in absent_misfits.values()
    # Where no host ever answered, the fault may be this machine's.
    any_answer = bool(present or absent_misfits)
    silent = any_answer and not likely and all(host.seconds >= limit for host in possible.values())
    why = "; ".join([*_reasons_text(unfit), *(host.why for _, host in sorted(unusable.items()))])
    note = f"no host can run it: {why}"
    early = not all(host.why for host in possible.values())
    if possible:
        note = f"waits for {names_text(sorted(possible))}, which {_away_text(len(possible), early=early)}"
        note = f"{note}; no other host can run it: {why}" if why else note
    return Prospect(
        note=note,
        refusal="; ".join([why, *_given_up_texts(possible, limit)]) if silent else "",
        likely=likely,
        early=early,
    )


def _given_up_texts(possible: Mapping[str, AwayHost], limit: float) -> list[str]:
    """Why hosts were given up: of many, the first with their reasons and the number of the others."""
    texts = [f"{host.why or name}, tried for {limit:.0f} s" for name, host in sorted(possible.items())]
    rest = len(texts) - NAMED_HOSTS
    return [*texts[:NAMED_HOSTS], f"and {rest} more, tried for {limit:.0f} s"] if rest > 0 else texts


def _away_text(count: int, *, early: bool) -> str:
    if early:
        return "has not answered yet" if count == 1 else "have not answered yet"
    return "cannot be reached"


def peers_note(spec: JobSpec, why: str, peers: Sequence[Peer], *, user: str) -> str:
    """Why a job waits although no host of this coordinator can run the job; `why` says so, and `peers` have the run
    too."""
    able = [str(peer.name) for peer in peers if misfit(spec, peer.facts) is None]
    if able:
        return f"waits for {names_text(able)}, which {'has' if len(able) == 1 else 'have'} the run too; {why}"
    if peers:
        return f"waits for a coordinator of {user} that reaches a host which can run it; {why}"
    return f"no host can run it: {why}"


def _reasons_text(reasons: Mapping[str, str | None]) -> list[str]:
    """The reasons of hosts, each with its host, in a fixed order."""
    return [f"{name} {reason}" for name, reason in sorted(reasons.items())]


def only_chances(
    specs: Iterable[JobSpec], present: Mapping[str, HostFacts], absent: Mapping[str, HostFacts | None]
) -> Mapping[str, str]:
    """The absent hosts without which a job of `specs` can run nowhere, each with the first such job.

    `absent` has the facts from the last answer of each absent host; None for a host without any answer, which may fit
    anything.
    """
    found: dict[str, str] = {}
    for spec in specs:
        if any(misfit(spec, facts) is None for facts in present.values()):
            continue
        for name, facts in absent.items():
            if facts is None or misfit(spec, facts) is None:
                found.setdefault(name, spec.workflow)
    return found
