"""The choice of the generation of a job for a run, agreed between all coordinators of the run, and beside `dstack
prune`.

Pruning and using exclude one another without clocks: a prune creates the tomb and then looks for pins; a run creates a
pin and then looks for the tomb. At least one of the two sees the other. Two coordinators of one run may look on
different sides of the moment when the tomb comes; then the first recorded want decides for the run: the run stays (the
prune has seen the pin), or has left. Nothing at or below a tomb is used by new runs; behind the highest tomb a new
shared generation is opened.
"""

from __future__ import annotations

from dataclasses import dataclass

from dstack.app.effects.catalogue import BucketPerformer, BucketReader, NewNonce, ObjectReader, Read
from dstack.app.effects.steps import Steps, ask
from dstack.app.protocol.complete_lists import last_folder
from dstack.app.protocol.create_if_absent import create, read_record
from dstack.app.protocol.generation_users import register
from dstack.app.protocol.jobs import Job, latest_of
from dstack.core.format.keys import JobKeys
from dstack.core.format.records import Pin, Tomb, Want, Why, pack, unpack
from dstack.errors import DamagedObjectError

PRUNED_REASON = "its result was pruned"


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationState:
    """The generations of a job: their numbers, the highest with a result (0: none) above the last closed (0: none)."""

    numbers: tuple[int, ...]
    result: int
    closed: int


def first_generation(job: Job) -> Steps[BucketPerformer, JobKeys]:
    """The generation to begin in: a generation where this run waits already, so that no attempt of the run is left
    alone; a new generation of the run's own when the job must run afresh; else the current generation, opened if need
    be."""
    numbers = yield from _numbers(job)
    if job.fresh:
        return (yield from _own_generation(job, numbers[-1]))
    # The highest first: a run goes from a generation to higher generations only.
    for number in reversed(numbers):
        if (yield from _is_in(job.generation(number).want(job.run.id))):
            return job.generation(number)
    return (yield from _choose(job, (yield from _state(job, numbers, 0))))


def _is_in(key: str) -> Steps[ObjectReader, bool]:
    """Whether this run waits in the generation with the want `key`; a damaged want does not count."""
    try:
        body = yield from ask(Read(key))
        return body is not None and not unpack(Want, key, body).left
    except DamagedObjectError:
        return False


def next_generation(job: Job, left: JobKeys) -> Steps[BucketPerformer, JobKeys]:
    """The generation to go on with for a run that has left one."""
    if job.fresh:
        numbers = yield from _numbers(job)
        return (yield from _own_generation(job, numbers[-1], after=left.generation))
    return (yield from _choose(job, (yield from current_state(job, above=left.generation))))


def current_state(job: Job, *, above: int = 0) -> Steps[BucketReader, GenerationState]:
    """The state of the generations above `above`, which is closed itself. Reads only.

    A rerun's generation without a result does not count, so that opening a generation does not change the answer.
    """
    return (yield from _state(job, (yield from _numbers(job)), above))


def _state(job: Job, numbers: tuple[int, ...], above: int) -> Steps[BucketReader, GenerationState]:
    for number in reversed([each for each in numbers if each > above]):
        keys = job.generation(number)
        if (yield from ask(Read(keys.result))) is not None:
            return GenerationState(numbers=tuple(numbers), result=number, closed=above)
        if (yield from ask(Read(keys.tomb))) is not None:
            return GenerationState(numbers=tuple(numbers), result=0, closed=number)
    return GenerationState(numbers=tuple(numbers), result=0, closed=above)


def _choose(job: Job, stands: GenerationState) -> Steps[BucketPerformer, JobKeys]:
    for number in reversed([each for each in stands.numbers if job.above < each <= stands.closed]):
        # Another coordinator of this run may be between its look for the tomb and its want: agree with it first.
        keys = job.generation(number)
        if (yield from ask(Read(keys.pin(job.run.id)))) is not None and not (yield from record_want(job, keys)).left:
            return keys
    if stands.result:
        return job.generation(stands.result)
    return (yield from shared_generation(job, stands.closed, PRUNED_REASON)) if stands.closed else job.generation(1)


def shared_generation(job: Job, after: int, reason: str) -> Steps[BucketPerformer, JobKeys]:
    """The lowest generation above `after` that every run may work in, opened if need be."""
    number = after + 1
    while True:
        keys = job.generation(number)
        body = yield from ask(Read(keys.why))
        if body is not None:
            why = _why(keys.why, body)
            if why is not None and why.shared:
                return keys
            number += 1
            continue
        # Whoever creates the record, the next round reads it: another run may have opened the number for itself alone.
        yield from create(
            keys.why, pack(Why(nonce=(yield from ask(NewNonce())), run=job.run.id, reason=reason, shared=True))
        )


def close_generation(job: Job, number: int, reason: str) -> Steps[BucketPerformer, None]:
    """Close generation `number`, whose result names damaged objects, to new users: all runs go on above it."""
    tomb = Tomb(nonce=(yield from ask(NewNonce())), user=job.run.user, reason=reason, damaged=True)
    yield from create(job.generation(number).tomb, pack(tomb))


def record_want(job: Job, keys: JobKeys, *, settled: bool = False) -> Steps[BucketPerformer, Want]:
    """Whether this run is in the generation or has left, with the last attempt that had ended when the run came.

    The first answer that a coordinator of the run records is the answer for all its coordinators. While the run is not
    final, no generation of the run is pruned. `settled`: there is a result, so that attempts do not matter.
    """
    key = keys.want(job.run.id)
    body = yield from ask(Read(key))
    if body is not None:
        return unpack(Want, key, body)
    # In this order: a prune that sees neither entry nor pin has created its tomb before the look below.
    yield from register(keys, job.run.id)
    yield from create(keys.pin(job.run.id), pack(Pin(nonce=(yield from ask(NewNonce())))))
    left = (yield from ask(Read(keys.tomb))) is not None
    ended = 0
    if not left and not settled:
        number, live = yield from latest_of(keys)
        # A living attempt is joined, and its end will count for this run; the ends before do not.
        ended = number if live is None else number - 1
    made = Want(
        nonce=(yield from ask(NewNonce())),
        run=job.run.id,
        workflow=job.spec.workflow,
        ended=ended,
        left=left,
        again=job.again,
    )
    if (yield from create(key, pack(made))):
        return made
    return (yield from read_record(Want, key))


def _numbers(job: Job) -> Steps[BucketReader, tuple[int, ...]]:
    """All generations, ascending; always with the first, which needs no record."""

    def is_there(number: int) -> Steps[ObjectReader, bool]:
        keys = job.generation(number)
        # Of one that was pruned only the tomb is left.
        return (yield from ask(Read(keys.why))) is not None or (yield from ask(Read(keys.tomb))) is not None

    return tuple(range(1, (yield from last_folder(job.generation(1).job, is_there)) + 1))


def _why(key: str, body: bytes) -> Why | None:
    """The reason of a generation; None where the record is damaged: then the generation belongs to no run."""
    try:
        return unpack(Why, key, body)
    except DamagedObjectError:
        return None


def _own_generation(job: Job, highest: int, *, after: int = 0) -> Steps[BucketPerformer, JobKeys]:
    """The generation above `after` that this run opened, opened if need be."""
    number = after + 1
    while True:
        keys = job.generation(number)
        body = yield from ask(Read(keys.why))
        if body is not None:
            why = _why(keys.why, body)
            if why is not None and why.run == job.run.id and not why.shared:
                return keys
        # A listed generation without a reason is the first or a pruned one: only a number above all others is opened.
        elif number > highest:
            made = Why(nonce=(yield from ask(NewNonce())), run=job.run.id, reason=job.fresh)
            if (yield from create(keys.why, pack(made))):
                return keys
            continue
        number += 1
