"""Watches other coordinators: first by certain knowledge of this machine, then by heartbeats."""

from __future__ import annotations

from collections.abc import Callable

from dstack.app.effects.answers import Liveness
from dstack.app.protocol.lease import OVERDUE_S, SILENCE_S
from dstack.core.format.keys import ProjectKeys
from dstack.core.format.records import Coordinator
from dstack.core.liveness import Observation, is_overdue, is_silent, observe
from dstack.ports import Bucket

Detector = Callable[[Coordinator], bool | None]
"""Whether a coordinator lives, for sure; None where only a heartbeat can tell."""


class Observer:
    """Remembers heartbeats and since when they have not changed, by this machine's own boot time."""

    def __init__(self, bucket: Bucket, keys: ProjectKeys, *, sure: Detector, boottime: Callable[[], float]) -> None:
        self._bucket = bucket
        self._keys = keys
        self._sure = sure
        self._boottime = boottime
        self._seen: dict[str, Observation] = {}

    def alive(self, coordinator: Coordinator) -> Liveness:
        """Whether the coordinator lives: for sure, or dead after long silence, or unknown."""
        sure = self._sure(coordinator)
        if sure is not None:
            return Liveness.of(sure)
        beat = self._bucket.get(self._keys.heartbeat(coordinator.id))
        if beat is None:
            self._seen.pop(coordinator.id, None)
            # A coordinator beats before it claims or adopts anything, and takes its heartbeat away when it leaves.
            return Liveness.DEAD
        now = self._boottime()
        seen = observe(self._seen.get(coordinator.id), beat, now)
        self._seen[coordinator.id] = seen
        return Liveness.DEAD if is_silent(seen, now, after=SILENCE_S) else Liveness.UNKNOWN

    def forget(self, coordinator: Coordinator) -> None:
        """Forget the heartbeats of a coordinator: the silence begins anew."""
        self._seen.pop(coordinator.id, None)

    def is_late(self, coordinator: Coordinator) -> bool:
        """Whether the heartbeat last seen by `alive` is overdue."""
        seen = self._seen.get(coordinator.id)
        return seen is not None and is_overdue(seen, self._boottime(), after=OVERDUE_S)

    def is_mute(self, coordinator: Coordinator) -> bool:
        """Whether `alive` called the coordinator dead for a silent heartbeat, and for no other reason."""
        seen = self._seen.get(coordinator.id)
        return seen is not None and is_silent(seen, self._boottime(), after=SILENCE_S)
