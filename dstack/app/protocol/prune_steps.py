"""Taking a generation, or the records of a run, out of the bucket beside anything that runs.

A generation: tomb first, then a look for users; nothing is deleted while there is a user. The `result` goes first, then
the manifests, then the packs, so that behind a result nothing is ever missing. The tomb stays for ever: later writes of
a very late writer belong to no result, and go with the next prune. A run: name, record, everything else, `final` last,
so that a slow coordinator that finds no outcome any more finds no record either. Each of these may be broken off at any
point and done again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from dstack.app.effects.answers import Liveness
from dstack.app.effects.catalogue import Alive, BucketPerformer, Delete, ListKeys, NewNonce, ObjectReader, Read
from dstack.app.effects.steps import Steps, ask
from dstack.app.protocol.create_if_absent import create
from dstack.app.protocol.generation_users import register, users_of
from dstack.core.format.identifiers import is_run_id
from dstack.core.format.key_parser import KeyKind, kind_of
from dstack.core.format.keys import JobKeys, ProjectKeys, RunKeys
from dstack.core.format.name_records import decode_name
from dstack.core.format.records import Pin, RunRecord, Tomb, Want, pack, unpack
from dstack.errors import BucketError
from dstack.model import Nonce, RunId


class GenerationUse(Enum):
    """Whether a generation has users."""

    NONE = "nobody uses it"
    RUN = "a run that has not ended uses it"
    READER = "somebody reads it"
    DOUBT = "somebody began to read it, and may be gone"


class RemovalResult(Enum):
    """The end of a removal of a generation."""

    GONE = "gone"
    USED = "used"
    """The generation has users: nothing was done, or no new users may come and a later prune removes the generation."""
    DOUBT = "doubt"


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRemoval:
    """`deleted` objects went. `use` names the kind of user in the way."""

    result: RemovalResult
    use: GenerationUse = GenerationUse.NONE
    deleted: int = 0


def remove_generation(
    project: ProjectKeys, keys: JobKeys, tomb: Tomb, ended: set[RunId]
) -> Steps[BucketPerformer, GenerationRemoval]:
    """Close the generation and remove everything but the tomb, unless there are users.

    `ended` remembers ended runs over many calls: an ended run never changes again.
    """
    # A tomb is for ever: a generation in use is not closed in vain.
    use = yield from user_of(project, keys, ended)
    if use is GenerationUse.NONE:
        yield from create(keys.tomb, pack(tomb))
        use = yield from user_of(project, keys, ended)
    # A user that came before the tomb is seen by the second look; a later user sees the tomb and leaves.
    if use is not GenerationUse.NONE:
        return GenerationRemoval(
            result=RemovalResult.DOUBT if use is GenerationUse.DOUBT else RemovalResult.USED, use=use
        )
    return GenerationRemoval(result=RemovalResult.GONE, deleted=(yield from _sweep(project, keys)))


def _sweep(project: ProjectKeys, keys: JobKeys) -> Steps[BucketPerformer, int]:
    found = [key for key in (yield from ask(ListKeys(keys.folder))) if key != keys.tomb]
    # The result by its key: a late list may lack it, and behind a result nothing may be missing.
    tiers: list[list[str]] = [[keys.result], [], [], []]
    for key in set(found) - {keys.result}:
        tiers[_TIERS.get(kind_of(project, key), 2)].append(key)
    for tier in tiers:
        if tier:
            yield from ask(Delete(tuple(sorted(tier))))
    return len(found)


_TIERS = {KeyKind.RESULT: 0, KeyKind.MANIFEST: 1, KeyKind.WANT: 3, KeyKind.PIN: 3, KeyKind.USER: 3}
"""The order of deletion: the result, then manifests, then (2) packs and all other objects, then the users."""


def user_of(project: ProjectKeys, keys: JobKeys, ended: set[RunId]) -> Steps[BucketPerformer, GenerationUse]:
    """The kind of user of the generation: a run that came and has neither ended nor left, or a reading process."""
    doubt = False
    for name in sorted((yield from users_of(keys, keys.pins, keys.wants))):
        if is_run_id(name):
            if (yield from _run_uses(project, keys, RunId(name), ended)):
                return GenerationUse.RUN
            continue
        alive = yield from _reader_lives(keys.pin(name))
        if alive is Liveness.ALIVE:
            return GenerationUse.READER
        doubt = doubt or alive is Liveness.UNKNOWN
    return GenerationUse.DOUBT if doubt else GenerationUse.NONE


def _run_uses(project: ProjectKeys, keys: JobKeys, run: RunId, ended: set[RunId]) -> Steps[ObjectReader, bool]:
    if run in ended:
        return False
    if (yield from has_ended(project.run(run))):
        ended.add(run)
        return False
    body = yield from ask(Read(keys.want(run)))
    # A run without a want stands between its entry in the register and its want: a user as well.
    return body is None or not unpack(Want, keys.want(run), body).left


def has_ended(run: RunKeys) -> Steps[ObjectReader, bool]:
    """Whether no coordinator will ever work for the run again; once true, true for ever.

    `final` is looked for first: a run that is being pruned loses its `final` after its record.
    """
    if (yield from ask(Read(run.final))) is not None:
        return True
    return (yield from ask(Read(run.record))) is None


def _reader_lives(key: str) -> Steps[BucketPerformer, Liveness]:
    body = yield from ask(Read(key))
    if body is None:
        # Without a pin the reader has left, or is about to pin and will then find the tomb.
        return Liveness.DEAD
    reader = unpack(Pin, key, body).reader
    return Liveness.UNKNOWN if reader is None else (yield from ask(Alive(reader)))


def pin_for_reader(keys: JobKeys, pin: Pin) -> Steps[BucketPerformer, bool]:
    """Pin the contents of the generation for the process `pin.reader` -> whether they stay until `unpin_reader`.

    False: the generation is being pruned, and may go at any moment. Every byte must still be checked: the heartbeat of
    a reader that is cut off from the bucket for minutes is taken for dead.
    """
    yield from register(keys, pin.nonce)
    yield from create(keys.pin(pin.nonce), pack(pin))
    if (yield from ask(Read(keys.tomb))) is None:
        return True
    yield from unpin_reader(keys, Nonce(pin.nonce))
    return False


def unpin_reader(keys: JobKeys, user: Nonce) -> Steps[BucketPerformer, None]:
    """Take a process's pin away."""
    yield from ask(Delete((keys.pin(user),)))


def forget_run(project: ProjectKeys, run: RunId) -> Steps[BucketPerformer, int]:
    """Remove all records of an ended run -> how many; 0 when the run has not ended.

    Generations, code and results, which other runs share, are not touched.
    """
    keys = project.run(run)
    if not (yield from has_ended(keys)):
        return 0
    found = set((yield from ask(ListKeys(keys.folder))))
    body = yield from ask(Read(keys.record))
    gone = 0
    if body is not None:
        # Before the record, which alone says the name.
        gone += yield from _forget_name(project, run, body)
    rest = found - {keys.record, keys.final}
    # Record and summary by their keys: a late list may lack them, and their order counts.
    for tier in ({keys.record}, rest, {keys.final}):
        if tier:
            yield from ask(Delete(tuple(sorted(tier))))
    return gone + len(found)


def _forget_name(project: ProjectKeys, run: RunId, body: bytes) -> Steps[BucketPerformer, int]:
    try:
        record = unpack(RunRecord, project.run(run).record, body)
    except BucketError:
        return 0
    own = project.run_of(record.user, record.machine, run)
    key = project.name(record.name)
    # Another run may have taken the name since: an earlier prune may have been broken off behind the name.
    there = yield from ask(Read(key))
    mine = [key] if there is not None and decode_name(there) == run else []
    mine += [own] if (yield from ask(Read(own))) is not None else []
    if mine:
        yield from ask(Delete(tuple(mine)))
    return len(mine)


def new_tomb(user: str, reason: str) -> Steps[BucketPerformer, Tomb]:
    return Tomb(nonce=(yield from ask(NewNonce())), user=user, reason=reason)
