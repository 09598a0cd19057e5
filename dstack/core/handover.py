"""What a laptop hands to the coordinator on a host, and how it is named there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dstack.core.format.codec import plain
from dstack.core.format.records import Coordinator
from dstack.core.placement import Peer
from dstack.model import Host, RunId


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOver:
    """One run for one host. It travels over SSH and stays in memory: `caller` and `credentials` are secret.

    `record` is the sha256 of the run's record: a coordinator runs nothing but what its own user handed to it.
    """

    bucket: str
    """Absolute: a path as the host sees it, or a URL."""
    options: Mapping[str, Any]
    """Storage options without credentials."""
    credentials: Mapping[str, Any] = field(default_factory=dict)
    """Storage options that hold the user's own credentials, where the inventory says that they are forwarded."""
    until: float | None = None
    """When those end, in seconds since the epoch; None where nobody says."""
    project: str
    run: RunId
    record: str
    host: Host
    """The inventory entry of this host, as it stands in claims."""
    peers: tuple[Peer, ...] = ()
    """All hosts that the run was handed to, this one included."""
    caller: Mapping[str, str] = field(default_factory=dict)
    attendant: Coordinator | None = None
    """Whoever works on the run now: the host stands by until that one is gone. None: it begins at once."""


def unseen_text(bucket: str) -> str:
    """What is said of a host that shows no use of a bucket that is in use."""
    return f"this host does not see the bucket {bucket}: no dstack has used it as seen from here"


def digest(body: bytes) -> str:
    """The sha256 by which a hand-over names the run's record."""
    return hashlib.sha256(body).hexdigest()


def rendezvous_name(hand: HandOver, boot_id: str, program: str) -> str:
    """The name under which one coordinator serves all hand-overs for one bucket in one boot of a host.

    `program` names the version: another one may be at work beside it until its own runs have ended.
    """
    text = json.dumps([boot_id, program, hand.bucket, plain(hand.options)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
