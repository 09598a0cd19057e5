"""Answers to effects, as sums of frozen values: each case of an answer has a name and carries only its own facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from dstack.core.foreign_attempts import Sighting
from dstack.model import ExitReport, WorkflowName


class Liveness(Enum):
    """Whether a coordinator lives, as far as the asking coordinator knows."""

    ALIVE = "alive"
    DEAD = "dead"
    """Known for sure, or the heartbeat of the coordinator has been silent for long enough."""
    UNKNOWN = "unknown"

    @classmethod
    def of(cls, sure: bool | None) -> Liveness:
        """`sure` True or False, or None where the answer is not known."""
        return cls.UNKNOWN if sure is None else cls.ALIVE if sure else cls.DEAD


# -- a slot on a host -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotHeld:
    """A supervisor waits on `host` with a slot taken. `address` is the inventory entry, for adopters."""

    host: str
    boot_id: str
    address: Mapping[str, object]
    account: str = ""
    folder: str = ""
    place: str = ""
    machine: str = ""


@dataclass(frozen=True, slots=True)
class SlotAwaited:
    """The job stands in the queue of a host, or other coordinators of the run have their turn first."""


@dataclass(frozen=True, slots=True)
class SlotUnavailable:
    """No host can be asked for a slot now; `why` is for people."""

    why: str


@dataclass(frozen=True, slots=True)
class NonceRefused:
    """Every host has refused this nonce for ever: its supervisor was killed, say. Another nonce may be taken."""


SlotAnswer = SlotHeld | SlotAwaited | SlotUnavailable | NonceRefused


# -- preparation and start ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prepared:
    """Code, inputs and work tree are on the host."""


@dataclass(frozen=True, slots=True)
class Unpreparable:
    """The job itself cannot be prepared: its attempt fails. `why` is for people."""

    why: str


@dataclass(frozen=True, slots=True)
class NotBegun:
    """An attempt did not begin, and the job has no part in that: the host is out of reach, does not hold the attempt
    any more, or has a full disk. Another attempt may be made. `why` is for people."""

    why: str


@dataclass(frozen=True, slots=True)
class BucketSilent:
    """The bucket did not answer, for the reason `why`: the same may succeed later."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedInput:
    """The object `key` of the artifacts of `workflow` does not match its manifest, also when read once more."""

    workflow: WorkflowName
    key: str
    why: str


PrepareAnswer = Prepared | Unpreparable | NotBegun | BucketSilent | DamagedInput


@dataclass(frozen=True, slots=True)
class JobStarted:
    """The supervisor has started the job `at` a time of the host's clock; 0.0 where the host has not said when."""

    at: float = 0.0


@dataclass(frozen=True, slots=True)
class StartRefused:
    """The attempt has not started, and never will: the supervisor has refused the attempt for ever."""


@dataclass(frozen=True, slots=True)
class StartUnknown:
    """The answer to a start was lost: only the verdict tells whether the job runs."""


StartAnswer = JobStarted | StartRefused | StartUnknown


@dataclass(frozen=True, slots=True)
class HostUnreachable:
    """The host of an attempt cannot be reached now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignAttempt:
    """The host of an attempt was reached, but not under the account of the attempt: `sighting` is all that is seen."""

    sighting: Sighting
    own_account: bool = False
    """The account is the same, and the folder is another: the folder was made anew, or another machine answers."""


Verdict = JobStarted | StartRefused | ForeignAttempt | HostUnreachable


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """The seconds for which this coordinator has tried a host in vain, and the time since when, for people. `owner`:
    whether the owner's heartbeat stands unchanged for long, as when a machine dies with its coordinator."""

    seconds: float
    since: str
    owner: bool = False


# -- a started job --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JobRunning:
    """The job has not ended, as far as the host has said."""


@dataclass(frozen=True, slots=True)
class JobUnkillable:
    """The kernel of the host does not end the job yet; `why` names the processes, for people."""

    why: str


WatchAnswer = ExitReport | JobRunning
StopAnswer = ExitReport | JobUnkillable | HostUnreachable


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """Log, packs and manifest are in the bucket. `manifest` is the sha256 of its body, `digest` of the content."""

    manifest: str
    digest: str


@dataclass(frozen=True, slots=True)
class Uncollectable:
    """The host says that the artifacts cannot be had: they are lost. `why` is for people."""

    why: str


@dataclass(frozen=True, slots=True)
class NotCollected:
    """The artifacts are not in the bucket yet: the host is out of reach or short of room. A later try may succeed."""


CollectAnswer = Collected | Uncollectable | NotCollected
