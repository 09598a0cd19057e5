"""The create rule: the only way in which shared objects come into being.

After any answer but CREATED only the object itself is believed: a client may have retried by itself, so that "exists"
can be a writer's own write, and a conflict can mean that nothing is there. A lost answer is followed by a look, and a
look that finds nothing by another try.
"""

from __future__ import annotations

from typing import TypeVar

from dstack.app.effects.catalogue import BucketTrouble, ObjectCreator, ObjectReader, Pause, PutNew, Read
from dstack.app.effects.steps import Effect, Steps, ask, take_now
from dstack.app.protocol.bucket_performer import BlockingCreator
from dstack.core.format.records import unpack
from dstack.errors import BucketError, UndecidedError
from dstack.ports import Bucket, Put

F = TypeVar("F")
R = TypeVar("R")
CreatorT = TypeVar("CreatorT", bound=ObjectCreator)

# With the pauses below a store has some 6 s to answer.
CREATE_ATTEMPTS = 8
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 5.0
"""Seconds between two attempts to create one object: at first, and at most."""
ATTACH_HINT = "check the bucket, then `dstack attach` the run"


def put_or_find(
    key: str,
    put: Effect[CreatorT, Put],
    look: Effect[CreatorT, F | None],
    *,
    attempts: int = CREATE_ATTEMPTS,
    hint: str = ATTACH_HINT,
) -> Steps[CreatorT, F | None]:
    """Create the object `key` by the effect `put` -> None when `put` created the object, else the answer of `look`.

    Raises UndecidedError, with `hint`, when the store leaves the question open for so many attempts.
    """
    pause = FIRST_PAUSE_S
    for attempt in range(1, attempts + 1):
        if (yield from ask(put)) is Put.CREATED:
            return None
        found = yield from ask(look)
        if found is not None:
            return found
        if attempt < attempts:
            yield from ask(Pause(pause))
            pause = min(LONGEST_PAUSE_S, pause * 2)
    raise UndecidedError(key, (yield from ask(BucketTrouble())), hint=hint)


def create_or_read(key: str, body: bytes, *, hint: str = ATTACH_HINT) -> Steps[ObjectCreator, bytes]:
    """Create `key` with `body` -> the bytes that stand there from now on: `body`, or another writer's."""
    found = yield from put_or_find(key, PutNew(key, body), Read(key), hint=hint)
    return body if found is None else found


def create(key: str, body: bytes, *, hint: str = ATTACH_HINT) -> Steps[ObjectCreator, bool]:
    """Create `key` with `body`, which holds a nonce of the writer's own -> True when this very body stands there."""
    return (yield from create_or_read(key, body, hint=hint)) == body


def create_now(bucket: Bucket, key: str, body: bytes) -> bool:
    """As `create`, blocking: for records written without a coordinator."""
    return take_now(create(key, body, hint="check the bucket and try again"), BlockingCreator(bucket))


def read_record(cls: type[R], key: str) -> Steps[ObjectReader, R]:
    """The record under a key that was listed or read before; raises BucketError when the record was pruned since, or is
    of another kind."""
    body = yield from ask(Read(key))
    if body is None:
        raise BucketError(f"{key} is gone", hint="`dstack prune` removed it, or something else did")
    return unpack(cls, key, body)
