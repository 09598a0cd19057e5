"""The hand-over of a run from a laptop to the coordinator on a host, and the names used for a hand-over there."""

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
    """One run for one host. A hand-over travels over SSH and stays in memory: `caller` and `credentials` are secret.

    `record` is the sha256 of the run's record: a coordinator runs nothing but the records handed over by its own user.
    """

    bucket: str
    """Absolute: a path on the host, or a URL."""
    options: Mapping[str, Any]
    """Storage options without credentials."""
    credentials: Mapping[str, Any] = field(default_factory=dict)
    """Storage options with the user's own credentials, where the inventory says `forward-credentials`; else empty."""
    until: float | None = None
    """When the credentials end, in seconds since the epoch; None where unknown."""
    project: str
    run: RunId
    record: str
    host: Host
    """The inventory entry of this host, as in claims."""
    peers: tuple[Peer, ...] = ()
    """All hosts with this run, this host included."""
    caller: Mapping[str, str] = field(default_factory=dict)
    attendant: Coordinator | None = None
    """The coordinator at work on the run now: the host stands by until the attendant is gone. None: the host begins at
    once."""


def unseen_text(bucket: str) -> str:
    """The message about a host without any sign of use of a bucket in use."""
    return f"this host does not see the bucket {bucket}: no dstack has used it as seen from here"


def digest(body: bytes) -> str:
    """The sha256 by which a hand-over names the record of the run."""
    return hashlib.sha256(body).hexdigest()


def rendezvous_name(hand: HandOver, boot_id: str, program: str) -> str:
    """The name under which one coordinator serves all hand-overs for one bucket in one boot of a host.

    `program` names the version of dstack: a coordinator of another version may work beside this coordinator until its
    own runs have ended.
    """
    # Without credentials: a coordinator with fresh credentials must meet the coordinator with the old ones.
    # With the boot: after a restart no former coordinator lives.
    text = json.dumps([boot_id, program, hand.bucket, plain(hand.options)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
