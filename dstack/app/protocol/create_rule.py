"""The create rule: the one way in which anything shared comes into being."""

from __future__ import annotations

from typing import TypeVar

from dstack.app.protocol.effects import Pause, PutNew, Read, Steps
from dstack.core.format.records import unpack
from dstack.errors import BucketError, UndecidedError
from dstack.ports import Put

R = TypeVar("R")

TRIES = 8


def create(key: str, body: bytes) -> Steps[bool]:
    """Create `key` with `body`, which holds a nonce of ours -> True when what is there is ours.

    After any answer but CREATED only the object itself is believed: a client may have retried by itself, so that
    "exists" can be our own write, and a conflict can mean that nothing is there. Raises BucketError when the store
    leaves it open for TRIES rounds.
    """
    for round_ in range(TRIES):
        outcome = yield PutNew(key, body)
        if outcome is Put.CREATED:
            return True
        found = yield Read(key)
        if found is not None:
            return bool(found == body)
        yield Pause(min(5.0, 0.05 * 2**round_))
    raise UndecidedError(key, "", hint="check the bucket, then `dstack attach` the run")


def read_record(cls: type[R], key: str) -> Steps[R]:
    """The record that was seen to be there; raises BucketError when it was pruned since, or is none of that kind."""
    body = yield Read(key)
    if body is None:
        raise BucketError(f"{key} is gone", hint="`dstack prune` removed it, or something else did")
    return unpack(cls, key, body)
