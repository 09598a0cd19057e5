"""The tools with which a coordinator coordinates a run, on any machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from dstack.app.coordination.heartbeat import HeartbeatWriter
from dstack.app.hosts.fleet import Fleet
from dstack.app.protocol.liveness import Observer
from dstack.core.format.keys import ProjectKeys
from dstack.core.placement import Peer, RunLoad
from dstack.model import JobSpec
from dstack.ports import Bucket, CodeSource, Screen

TurnDelay = Callable[[JobSpec, RunLoad], float]
"""Job, and the load of the run -> seconds to wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinationContext:
    """The tools of a coordinator. `caller` holds the values that jobs get from memory alone (`job_secrets`); they stay
    there."""

    bucket: Bucket
    project: str
    keys: ProjectKeys
    fleet: Fleet
    code: CodeSource
    screen: Screen
    observer: Observer
    caller: Mapping[str, str] = field(repr=False)
    new_nonce: Callable[[], str]
    heart: HeartbeatWriter
    turn: TurnDelay = lambda spec, standing: 0.0
    """Seconds for which other coordinators of the run go first, where each host has a coordinator."""
    peers: Sequence[Peer] = ()
    """The hosts with the run, where this coordinator is on a host itself."""
