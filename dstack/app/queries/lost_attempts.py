"""Lost attempts by the records: how an attempt ended, and the attempts of a job that may still live. Reads only."""

from __future__ import annotations

from collections.abc import Collection

from dstack.core.format.keys import AttemptKeys
from dstack.core.format.records import End, unpack
from dstack.core.lifecycle import AttemptEnd
from dstack.errors import BucketError
from dstack.ports import Bucket


def end_of(bucket: Bucket, attempt: AttemptKeys) -> End | None:
    """How an attempt ended by the records; None before its end, or where the record is damaged. Blocking."""
    body = bucket.get(attempt.end)
    try:
        return unpack(End, attempt.end, body) if body is not None else None
    except BucketError:
        return None


def lost_attempts(bucket: Bucket, last: AttemptKeys, *, last_ended: bool) -> tuple[int, ...]:
    """The lost attempts up to `last` that may live; `last_ended`: `last` itself came to an end. Blocking.

    Costs nothing for a job with a single ended attempt, else a read or two for each attempt.
    """
    numbers: Collection[int] = range(1, last.number + (0 if last_ended else 1))
    return tuple(number for number in numbers if _may_live(bucket, last.attempt(number)))


def _may_live(bucket: Bucket, attempt: AttemptKeys) -> bool:
    end = end_of(bucket, attempt)
    return end is not None and end.status == AttemptEnd.LOST and bucket.get(attempt.gone) is None
