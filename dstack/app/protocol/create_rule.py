"""The create rule: the one way in which anything shared comes into being.

After any answer but CREATED only the object itself is believed: a client may have retried by itself, so that "exists"
can be a writer's own write, and a conflict can mean that nothing is there. A lost answer is followed by a look, and a
look that finds nothing by another try.
"""

from __future__ import annotations

from typing import TypeVar

from dstack.app.protocol.blocking_bucket import BlockingCreator
from dstack.app.protocol.effects import ObjectCreator, ObjectReader, Pause, Pauser, PutNew, Read
from dstack.app.protocol.steps import Effect, Steps, ask, take_now
from dstack.core.format.records import unpack
from dstack.errors import BucketError, UndecidedError
from dstack.ports import Bucket, Put

F = TypeVar("F")
R = TypeVar("R")
PauserT = TypeVar("PauserT", bound=Pauser)

CREATE_ATTEMPTS = 8
HINT = "check the bucket, then `dstack attach` the run"


def put_or_find(
    key: str, put: Effect[PauserT, Put], look: Effect[PauserT, F | None], *, attempts: int = CREATE_ATTEMPTS
) -> Steps[PauserT, F | None]:
    """Create the object `key` by the effect `put` -> None when it was created, else what `look` found there.

    Raises UndecidedError when the store leaves it open for so many attempts.
    """
    for attempt in range(attempts):
        if (yield from ask(put)) is Put.CREATED:
            return None
        found = yield from ask(look)
        if found is not None:
            return found
        yield from ask(Pause(min(5.0, 0.05 * 2**attempt)))
    raise UndecidedError(key, "", hint=HINT)


def create_or_read(key: str, body: bytes) -> Steps[ObjectCreator, bytes]:
    """Create `key` with `body` -> the bytes that stand there from now on: `body`, or another writer's."""
    found = yield from put_or_find(key, PutNew(key, body), Read(key))
    return body if found is None else found


def create(key: str, body: bytes) -> Steps[ObjectCreator, bool]:
    """Create `key` with `body`, which holds a nonce of the writer's own -> True when that is what stands there."""
    return (yield from create_or_read(key, body)) == body


def create_or_read_now(bucket: Bucket, key: str, body: bytes, *, hint: str) -> bytes:
    """As `create_or_read`, blocking; an error tells what the bucket knows of its trouble, and `hint`."""
    try:
        return take_now(create_or_read(key, body), BlockingCreator(bucket))
    except UndecidedError:
        raise UndecidedError(key, bucket.trouble, hint=hint) from None


def create_now(bucket: Bucket, key: str, body: bytes) -> bool:
    """As `create`, blocking: for whatever is written without a coordinator."""
    return create_or_read_now(bucket, key, body, hint="check the bucket and try again") == body


def read_record(cls: type[R], key: str) -> Steps[ObjectReader, R]:
    """The record that was seen to be there; raises BucketError when it was pruned since, or is none of that kind."""
    body = yield from ask(Read(key))
    if body is None:
        raise BucketError(f"{key} is gone", hint="`dstack prune` removed it, or something else did")
    return unpack(cls, key, body)
