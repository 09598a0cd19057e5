"""What a step may ask of the world. A step is a generator: it yields an effect and is sent the answer.

`effect_driver.py` performs effects on a real bucket and real hosts; the simulator of the tests performs them on a model
with crashes, pauses and lost answers. No step does anything else, so what the simulator shows holds for the driver.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from dstack.core.format.keys import AttemptKeys
from dstack.core.format.records import Claim, Coordinator
from dstack.core.sightings import Sighting
from dstack.errors import BucketError
from dstack.model import JobStatus, Nonce, WorkflowName

T = TypeVar("T")

WAITS_FOR_A_SLOT = "waits for a slot"
"""What is shown of a job that is in the queue of a host, where the queue itself says the rest."""


class Effect:
    """Base of everything that a step can yield."""

    __slots__ = ()


Steps = Generator[Effect, Any, T]


async def take(steps: Steps[T], perform: Callable[[Effect], Awaitable[Any]]) -> T:
    """Run steps to their end, giving each effect's answer back to them; an error of the bucket is raised in them."""
    answer: Any = None
    failure: BucketError | None = None
    while True:
        try:
            effect = steps.send(answer) if failure is None else steps.throw(failure)
        except StopIteration as end:
            result: T = end.value
            return result
        answer, failure = None, None
        try:
            answer = await perform(effect)
        except BucketError as error:
            failure = error  # the steps know the way on, or what must be let go of


def answered(steps: Steps[T], perform: Callable[[Effect], Any]) -> T:
    """As `take`, on the spot: `perform` blocks, and nothing else runs meanwhile."""

    async def perform_now(effect: Effect) -> Any:
        return perform(effect)

    try:
        take(steps, perform_now).send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("nothing that is performed on the spot can be waited for")


@dataclass(frozen=True, slots=True)
class PutNew(Effect):
    """One create-if-absent -> ports.Put. Only `create_rule.create` yields it."""

    key: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Read(Effect):
    """-> the object's bytes, None when absent."""

    key: str


@dataclass(frozen=True, slots=True)
class ListKeys(Effect):
    """-> all keys below a folder, ascending. What came lately may lack: ask for it by key before deciding on it."""

    prefix: str


@dataclass(frozen=True, slots=True)
class Sizes(Effect):
    """-> the objects below a folder, each with its size in bytes. What came lately may lack."""

    prefix: str


@dataclass(frozen=True, slots=True)
class Reaches(Effect):
    """-> whether the object is there and has at least `size` bytes, of which there is one."""

    key: str
    size: int


@dataclass(frozen=True, slots=True)
class Children(Effect):
    """-> names directly below a folder, ascending, folders with a trailing "/". What came lately may lack."""

    prefix: str


@dataclass(frozen=True, slots=True)
class Delete(Effect):
    """Remove objects, in any order; absent ones are fine -> None. Only `prune_steps.py` and who unpins yield it."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pause(Effect):
    """Let time pass -> None."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Show(Effect):
    """Tell whoever watches -> None. `attempt` says where the log is when it is not this coordinator's own."""

    workflow: WorkflowName
    status: JobStatus
    host: str = ""
    note: str = ""
    attempt: AttemptKeys | None = None
    mine: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A supervisor waits on `host` with a slot taken. `address` is the inventory entry, for adopters."""

    host: str
    boot_id: str
    address: dict[str, Any]
    account: str = ""
    folder: str = ""
    place: str = ""
    machine: str = ""


@dataclass(frozen=True, slots=True)
class Hold(Effect):
    """Wait for a slot on some host, at most `patience` seconds -> Held | None (still waiting) | str (why not now) |
    False (every host has refused this nonce for ever: its supervisor was killed, say; another one may be taken).

    Asking again with the same nonce goes on waiting in the same place of the queue.
    """

    nonce: Nonce
    workflow: WorkflowName
    patience: float


@dataclass(frozen=True, slots=True)
class Drop(Effect):
    """End the waiting or held supervisor of this nonce, if there is one -> None. Its verdict is then refused."""

    nonce: Nonce


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """The bucket did not answer, for the reason `why`: the same may succeed later."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotBegun:
    """An attempt did not begin, and the job has no part in that: its host is out of reach, does not hold the attempt
    any more, or its disk is full. Another attempt may be made. `why` is for people."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedInput:
    """The object `key` of the artifacts of `workflow` is not what its manifest says, also when read once more."""

    workflow: WorkflowName
    key: str
    why: str


@dataclass(frozen=True, slots=True)
class Prepare(Effect):
    """Code, inputs and work tree to the claim's host -> None when done, str why the job cannot be prepared,
    NotBegun, Later, or DamagedInput."""

    claim: Claim
    workflow: WorkflowName
    attempt: AttemptKeys


@dataclass(frozen=True, slots=True)
class Go(Effect):
    """Let the held supervisor start -> when it did, by its host's clock; 0.0 refused, None nobody knows."""

    claim: Claim
    workflow: WorkflowName


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """The host of an attempt was reached, but not under the account whose attempt it is: what is seen of it there."""

    sighting: Sighting
    own_account: bool = False
    """The account is the same, and its folder is another one: it was made anew, or another machine answers."""


@dataclass(frozen=True, slots=True)
class AskVerdict(Effect):
    """-> "started" | "refused" (then for ever) | Foreign | None when the host cannot be reached."""

    claim: Claim


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """For how many seconds this coordinator has tried a host in vain, and since when, for people. `owner`: whether the
    owner's heartbeat stands and has not changed for long, as when its machine went with it."""

    seconds: float
    since: str
    owner: bool = False


@dataclass(frozen=True, slots=True)
class HowSilent(Effect):
    """After an AskVerdict or a Watch without an answer -> Silence; a host that answers under another account is not
    silent. `owner` is another coordinator that looks after the attempt, None for one of this coordinator's own."""

    claim: Claim
    owner: Coordinator | None = None


@dataclass(frozen=True, slots=True)
class Watch(Effect):
    """Carry the log on and wait for the end of the job, at most `patience` -> ExitReport | None."""

    claim: Claim
    workflow: WorkflowName
    attempt: AttemptKeys
    patience: float


@dataclass(frozen=True, slots=True)
class StopJob(Effect):
    """End the job's process tree -> ExitReport | None when the host cannot be reached | str: what does not end yet."""

    claim: Claim
    abort: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """Log, packs and manifest are in the bucket. `manifest` is the sha256 of its body, `digest` of the content."""

    manifest: str
    digest: str


@dataclass(frozen=True, slots=True)
class Collect(Effect):
    """The rest of the log, then packs, then the manifest -> Collected | str why it can't be done | None unreachable.

    With `keep` false (aborted, or nothing was started) only the log is brought.
    """

    claim: Claim
    workflow: WorkflowName
    attempt: AttemptKeys
    partial: bool
    keep: bool


@dataclass(frozen=True, slots=True)
class Release(Effect):
    """The host may forget the attempt -> None; best effort."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class Linger(Effect):
    """Take `steps` beside all that follows, for an attempt that was called lost and may live -> None, at once.

    Its log is shown no more. What is left of the steps when the run has ended is given a moment, and then given up.
    """

    claim: Claim
    steps: Steps[None]


@dataclass(frozen=True, slots=True)
class Alive(Effect):
    """Does this coordinator live? -> True | False (sure, or silent for long enough) | None (not known yet).

    `claim` is of an attempt that it looks after: its host may know for sure.
    """

    coordinator: Coordinator
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class NewNonce(Effect):
    """-> a fresh Nonce."""
