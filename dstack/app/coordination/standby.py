"""Standing by for the attendant of a run: the coordinator in a `dstack run` or `attach`, on a machine that may fall
asleep."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from dstack.app.effects.answers import Liveness
from dstack.app.effects.catalogue import Alive, LivenessJudge, ObjectReader, Pause, Pauser, Read
from dstack.app.effects.steps import Steps, ask, take
from dstack.app.protocol.lease import SILENCE_S
from dstack.app.protocol.liveness import Observer
from dstack.core.format.keys import RunKeys
from dstack.core.format.records import Coordinator
from dstack.errors import BucketError
from dstack.ports import Bucket

STANDBY_POLL_S = SILENCE_S / 4
"""Seconds between two looks at the attendant's heartbeat: enough looks in a silence to call the attendant silent."""


class StandByPerformer(ObjectReader, Pauser, LivenessJudge, Protocol):
    """The performer of stand-by steps, which read and wait and do nothing else."""


def stand_by(run: RunKeys, attendant: Coordinator) -> Steps[StandByPerformer, bool]:
    """Wait for as long as the attendant lives -> whether the run is to be worked on now: the run has not ended.

    Each look reads the heartbeat alone, and nothing is written: until this returns True the run is the attendant's, and
    the stand-by host claims nothing.
    """
    while (yield from ask(Alive(attendant))) is not Liveness.DEAD:
        yield from ask(Pause(STANDBY_POLL_S))
    return (yield from ask(Read(run.final))) is None


class AttendantWatch:
    """Stands by for attendants of runs of one project: a `StandByPerformer`.

    `say` gets a line when the bucket gives no answer, and `is_over` says that the bucket can give no answer any more.
    """

    def __init__(
        self,
        bucket: Bucket,
        observer: Observer,
        *,
        say: Callable[[str], None],
        is_over: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._bucket = bucket
        self._observer = observer
        self._say = say
        self._is_over = is_over
        self._sleep = sleep

    async def wait(self, run: RunKeys, attendant: Coordinator) -> bool:
        """Whether the run is to be worked on now; False when the run has ended, or when this host sees no more of the
        bucket.

        A bucket that gave no answer may have kept the attendant from beating too: the silence begins anew then.
        """
        last = ""
        while True:
            try:
                return await take(stand_by(run, attendant), self)
            except BucketError as error:
                self._observer.forget(attendant)
                if self._is_over():
                    self._say("the credentials that were lent have ended: stands by no more")
                    return False
                if last != str(error):
                    last = str(error)
                    self._say(last)
            await self._sleep(STANDBY_POLL_S)

    async def alive(self, effect: Alive, /) -> Liveness:
        return await asyncio.to_thread(self._observer.alive, effect.coordinator)

    async def read(self, effect: Read, /) -> bytes | None:
        return await asyncio.to_thread(self._bucket.get, effect.key)

    async def pause(self, effect: Pause, /) -> None:
        await self._sleep(effect.seconds)
