"""What the coordination of one run works with, on whatever machine it is."""

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
"""Job, and how the run stands -> seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinationContext:
    """What a coordinator works with. `caller` holds what jobs are `given` from memory alone; it stays there."""

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
    """For how long other coordinators of the run are let go first, where each host has one of its own."""
    peers: Sequence[Peer] = ()
    """The hosts that the run was handed to, where this coordinator is on one of them."""
