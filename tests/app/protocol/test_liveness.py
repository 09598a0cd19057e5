"""Whether another coordinator lives: certain knowledge first, then its heartbeat, by this machine's own clock."""

from __future__ import annotations

import pytest

from dstack.app.effects.answers import Liveness
from dstack.app.protocol.lease import OVERDUE_S, SILENCE_S
from dstack.app.protocol.liveness import Observer
from dstack.core.format.keys import ProjectKeys
from tests.support.buckets.memory import MemoryBucket
from tests.support.records.story import ME

KEYS = ProjectKeys.of("p")
BEAT_KEY = KEYS.heartbeat(ME.id)


class Watching:
    """An observer with a clock, a bucket, and perhaps certain knowledge."""

    def __init__(self, sure: bool | None = None) -> None:
        self.bucket, self.now, self.sure = MemoryBucket(), 1000.0, sure
        self.observer = Observer(self.bucket, KEYS, sure=lambda _: self.sure, boottime=lambda: self.now)

    def after(self, seconds: float) -> Liveness:
        self.now += seconds
        return self.observer.alive(ME)


@pytest.mark.parametrize(("sure", "liveness"), [(True, Liveness.ALIVE), (False, Liveness.DEAD)])
def test_certain_knowledge_needs_no_heartbeat(sure: bool, liveness: Liveness) -> None:
    watching = Watching(sure)
    assert watching.after(0) is liveness
    assert watching.bucket.requests["get"] == 0


def test_a_coordinator_without_a_heartbeat_has_left() -> None:
    assert Watching().after(0) is Liveness.DEAD


def test_a_heartbeat_is_silent_only_once_this_machine_has_seen_it_unchanged_for_the_whole_silence() -> None:
    watching = Watching()
    watching.bucket.put(BEAT_KEY, b"1")
    assert watching.after(0) is Liveness.UNKNOWN, "however old it is: the first look tells nothing"
    assert watching.after(SILENCE_S - 1) is Liveness.UNKNOWN
    watching.bucket.put(BEAT_KEY, b"2")
    assert watching.after(1) is Liveness.UNKNOWN
    assert watching.after(SILENCE_S - 1) is Liveness.UNKNOWN
    assert not watching.observer.is_mute(ME)
    assert watching.after(1) is Liveness.DEAD
    assert watching.observer.is_mute(ME)


def test_a_silence_in_which_the_bucket_answered_nobody_does_not_count() -> None:
    watching = Watching()
    watching.bucket.put(BEAT_KEY, b"1")
    watching.after(0)
    watching.observer.forget(ME)
    assert watching.after(2 * SILENCE_S) is Liveness.UNKNOWN


def test_a_heartbeat_is_overdue_long_before_it_is_silent() -> None:
    watching = Watching()
    assert not watching.observer.is_late(ME)
    watching.bucket.put(BEAT_KEY, b"1")
    watching.after(0)
    watching.after(OVERDUE_S - 1)
    assert not watching.observer.is_late(ME)
    watching.after(2)
    assert watching.observer.is_late(ME)
