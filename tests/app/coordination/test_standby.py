"""Standing by for the attendant of a run, in simulated time: when it ends, and what it asks the bucket for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dstack.app.coordination.standby import STANDBY_POLL_S, AttendantWatch
from dstack.app.protocol.lease import BEAT_INTERVAL_S, SILENCE_S
from dstack.app.protocol.liveness import Observer
from dstack.core.format.keys import ProjectKeys
from dstack.core.format.records import Coordinator
from dstack.errors import BucketError
from dstack.model import RunId
from tests.support.buckets.memory import MemoryBucket

KEYS = ProjectKeys.of("p")
RUN = KEYS.run(RunId("0000000000001-aaaaaaaaaa"))
ATTENDANT = Coordinator(id="laptop", user="alice", machine="laptop", boot_id="l", pid=1, lock="/x/laptop.lock")
HEARTBEAT = KEYS.heartbeat(ATTENDANT.id)
FIRST = -8.0
"""When the attendant beat first, before the scene begins."""
SO_LONG = 4000.0
"""Seconds after which a scene ends in which nobody takes the run up."""


class Scene(MemoryBucket):
    """A bucket on a clock of its own, in which an attendant beats until `dies` (None: for ever).

    `leaves`: its heartbeat goes with it. `away` are spans in which the bucket answers nobody, `mute` one in which it
    takes no writes.
    """

    def __init__(
        self,
        *,
        dies: float | None = None,
        leaves: bool = False,
        away: tuple[tuple[float, float], ...] = (),
        mute: tuple[float, float] = (-1.0, -1.0),
    ) -> None:
        super().__init__()
        self.now = 0.0
        self.reads: list[tuple[float, str]] = []
        self._dies = dies
        self._leaves = leaves
        self._away = away
        self._mute = mute

    def _is_away(self, now: float) -> bool:
        return any(begin <= now < end for begin, end in self._away)

    def get(self, key: str) -> bytes | None:
        if self._is_away(self.now):
            raise BucketError("the store is away")
        self.reads.append((self.now, key))
        if key != HEARTBEAT:
            return super().get(key)
        if self._leaves and self._dies is not None and self.now >= self._dies:
            return None
        last = self.now if self._dies is None else min(self.now, self._dies)
        beats = [FIRST + number * BEAT_INTERVAL_S for number in range(int((last - FIRST) // BEAT_INTERVAL_S) + 1)]
        begin, end = self._mute
        return str([at for at in beats if not self._is_away(at) and not begin <= at < end][-1]).encode()

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now > SO_LONG:
            raise TimeoutError

    def play(self, *, sure: bool | None = None, is_over: Callable[[], bool] = lambda: False) -> bool:
        """Whether the run is taken up; raises TimeoutError when that is never decided."""
        observer = Observer(self, KEYS, sure=lambda other: sure, boottime=lambda: self.now)
        standing = AttendantWatch(self, observer, say=lambda text: None, is_over=is_over, sleep=self.sleep)
        return asyncio.run(standing.wait(RUN, ATTENDANT))


@given(dies=st.integers(0, 2000))
@settings(max_examples=50, deadline=None)
def test_the_run_is_taken_up_when_the_heartbeat_stood_still_for_the_silence(dies: int) -> None:
    scene = Scene(dies=dies)
    assert scene.play() is True
    last = FIRST + (dies - FIRST) // BEAT_INTERVAL_S * BEAT_INTERVAL_S
    assert last + SILENCE_S <= scene.now <= last + SILENCE_S + 2 * STANDBY_POLL_S


def test_nothing_but_the_heartbeat_is_read_every_half_minute_and_nothing_is_written() -> None:
    scene = Scene()
    with pytest.raises(TimeoutError):
        scene.play()
    assert scene.reads == [(number * STANDBY_POLL_S, HEARTBEAT) for number in range(int(SO_LONG // STANDBY_POLL_S) + 1)]
    assert set(scene.requests) <= {"get"}


@given(dies=st.integers(0, 2000), ended=st.booleans())
@settings(max_examples=50, deadline=None)
def test_an_attendant_that_leaves_is_followed_at_the_next_look_unless_the_run_has_ended(dies: int, ended: bool) -> None:
    scene = Scene(dies=dies, leaves=True)
    if ended:
        scene.objects[RUN.final] = b"{}"
    assert scene.play() is not ended
    assert dies <= scene.now < dies + STANDBY_POLL_S
    assert scene.reads[-1] == (scene.now, RUN.final), "what one read tells is not asked for again"


def test_a_run_that_ended_before_its_attendant_died_is_not_taken_up() -> None:
    scene = Scene(dies=100.0)
    scene.objects[RUN.final] = b"{}"
    assert scene.play() is False


@given(
    away=st.lists(st.tuples(st.floats(1.0, 3000.0), st.floats(1.0, 600.0)).map(lambda span: (span[0], sum(span)))),
)
@settings(max_examples=200, deadline=None)
def test_a_bucket_that_is_away_for_both_is_no_silence_of_the_attendant(away: list[tuple[float, float]]) -> None:
    """It lives, and beats whenever the bucket answers: nobody may take its run, however often that is away."""
    scene = Scene(away=tuple(away))
    with pytest.raises(TimeoutError):
        scene.play()


def test_a_bucket_that_comes_back_is_looked_at_before_the_attendant_has_beaten() -> None:
    """Two looks at the last beat before the outage, one just behind it: longer than the silence, and a live one."""
    outage = 10 * STANDBY_POLL_S - 1.0
    scene = Scene(mute=(FIRST + 3 * BEAT_INTERVAL_S, outage), away=((3 * STANDBY_POLL_S - 1.0, outage),))
    with pytest.raises(TimeoutError):
        scene.play()


def test_where_the_death_is_known_for_sure_no_silence_is_waited_for() -> None:
    scene = Scene()
    assert scene.play(sure=False) is True
    assert scene.now == 0.0


def test_credentials_that_are_over_end_it() -> None:
    """The host sees no more of the run, and its secrets need not stay there."""
    scene = Scene(away=((100.0, SO_LONG),))
    assert scene.play(is_over=lambda: scene.now > 1000.0) is False
    assert 1000.0 < scene.now <= 1000.0 + STANDBY_POLL_S
