"""Steps: a decision written as a generator that yields effects and is sent the answers.

A step does nothing to the world by itself, so the behaviour of steps in the simulator of the tests holds for the
coordinators. Each effect names its performer and the type of its answer; steps name the performer that they need. A
performer that lacks an effect of the steps, or answers with another type, is an error of mypy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Generator
from typing import Generic, TypeVar, cast

from dstack.errors import BucketError

A = TypeVar("A")
P = TypeVar("P")
T = TypeVar("T")
A_co = TypeVar("A_co", covariant=True)
P_contra = TypeVar("P_contra", contravariant=True)


class Effect(ABC, Generic[P_contra, A_co]):
    """A frozen value: a single request to a performer, such as to read an object."""

    __slots__ = ()

    @abstractmethod
    def perform(self, performer: P_contra, /) -> Awaitable[A_co]:
        """Have `performer` perform this effect -> the answer; raises BucketError when the bucket gives none."""


Steps = Generator[Effect[P, object], object, T]
"""`Steps[P, T]` come to a T, and yield only effects that a performer P can perform."""


def ask(effect: Effect[P, A]) -> Steps[P, A]:
    """Yield an effect and return the answer of the performer."""
    answer = yield effect
    # `take` sends the answer of the very effect that it was given. A generator's type cannot say so.
    return cast("A", answer)


async def take(steps: Steps[P, T], performer: P) -> T:
    """Run steps to the end, sending the answer of each effect back; an error of the bucket is raised in the steps."""
    answer: object = None
    failure: BucketError | None = None
    while True:
        try:
            effect = steps.send(answer) if failure is None else steps.throw(failure)
        except StopIteration as end:
            result: T = end.value
            return result
        answer, failure = None, None
        try:
            answer = await effect.perform(performer)
        except BucketError as error:
            failure = error  # the steps know the way on, or what must be let go of


def take_now(steps: Steps[P, T], performer: P) -> T:
    """As `take`, for a performer that blocks: its coroutines never wait, so no event loop is needed."""
    return on_the_spot(take(steps, performer))


def on_the_spot(answer: Awaitable[T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        next(answer.__await__())
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("a coroutine that is run on the spot must not wait for anything")
