"""Steps that a test feeds with answers, effect after effect."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import count
from typing import TypeVar, cast

from dstack.app.effects import catalogue as fx
from dstack.app.effects.steps import Effect, Steps, take_now
from dstack.ports import Bucket

T = TypeVar("T")
UNANSWERED = object()
"""What `bucket_answer` says of an effect that is none of the bucket's."""


class FedPerformer:
    """Answers every effect by `answer_of`, whichever method the effect calls."""

    def __init__(self, answer_of: Callable[[Effect[fx.Performer, object]], object]) -> None:
        self._answer_of = answer_of

    def __getattr__(self, method: str) -> Callable[[Effect[fx.Performer, object]], Awaitable[object]]:
        async def perform(effect: Effect[fx.Performer, object], /) -> object:
            return self._answer_of(effect)

        return perform


def feed(steps: Steps[fx.Performer, T], answer_of: Callable[[Effect[fx.Performer, object]], object]) -> T:
    """Take the steps to their end; a BucketError that `answer_of` raises is raised in them."""
    return take_now(steps, cast("fx.Performer", FedPerformer(answer_of)))


def bucket_answer(bucket: Bucket, effect: Effect[fx.Performer, object]) -> object:
    """The answer of a bucket to an effect on it, else UNANSWERED."""
    match effect:
        case fx.PutNew(key, body):
            return bucket.create(key, body)
        case fx.Read(key):
            return bucket.get(key)
        case fx.ListKeys(prefix):
            return bucket.list(prefix)
        case fx.Children(prefix):
            return bucket.children(prefix)
    return UNANSWERED


QUIET = (fx.Show, fx.Pause, fx.Drop, fx.Release, fx.Linger)
"""Effects that a test need not answer."""


def play(
    steps: Steps[fx.Performer, T], bucket: Bucket, answers: Mapping[type[object], object] | None = None
) -> tuple[T, list[str]]:
    """Take the steps to their end on a bucket -> their result, and the names of the effects.

    `answers` are the answers to other effects by their class: a value, or an iterator of values.
    """
    asked: list[str] = []
    nonces = count(1)

    def answer_of(effect: Effect[fx.Performer, object]) -> object:
        asked.append(type(effect).__name__)
        if answers and type(effect) in answers:
            given = answers[type(effect)]
            return next(given) if isinstance(given, Iterator) else given
        if isinstance(effect, fx.NewNonce):
            return f"fresh{next(nonces)}"
        if isinstance(effect, QUIET):
            return None
        if isinstance(effect, fx.Delete):
            for key in effect.keys:
                bucket.delete(key)
            return None
        answer = bucket_answer(bucket, effect)
        assert answer is not UNANSWERED, f"the test has no answer to {effect!r}"
        return answer

    return feed(steps, answer_of), asked
