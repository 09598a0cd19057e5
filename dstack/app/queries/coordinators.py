"""The coordinators of a run without a summary, judged at once: by locks of this machine, and by heartbeats.

For people alone. Nothing is taken over on these signs: a take-over waits for a silence by the observer's own clock
(`app/protocol/liveness`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from dstack.app.protocol.lease import BEAT_INTERVAL_S, SILENCE_S
from dstack.app.protocol.liveness import Detector
from dstack.app.queries.run_views import Caretakers
from dstack.core.format.keys import ProjectKeys, RunKeys
from dstack.core.format.records import Coordinator, at_machine, unpack
from dstack.core.heartbeats import decode_beat
from dstack.ports import Bucket

NEW_RUN_S = 15.0
"""Seconds after its submission in which a run may still lack a coordinator."""
LATE_BEAT_S = 3 * BEAT_INTERVAL_S
"""Seconds since the last beat after which people are told."""
SILENT_BEAT_S = 2 * SILENCE_S
"""Seconds since the last sign after which a coordinator elsewhere counts as silent; clocks differ a little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorSign:
    """The visible state of a coordinator.

    `alive`: as far as known now; `last_beat`: the time of its last beat (0.0: not known); `credentials_end`: the end of
    its lent credentials, where the coordinator is silent because of the end.
    """

    alive: bool
    last_beat: float = 0.0
    credentials_end: float = 0.0
    unreachable: Mapping[str, float] = field(default_factory=dict)
    """Attempts out of the coordinator's reach, and since when, by their nonces."""
    sightings: Mapping[str, str] = field(default_factory=dict)
    """The sightings by the coordinator of attempts of other accounts, by their nonces."""
    waits: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The reasons for which jobs wait, known to the coordinator, by run id and workflow."""
    standby: tuple[str, ...] = ()
    """The hosts in stand-by for a silent coordinator, expected to go on."""


class Presence:
    """One look at coordinators: each is asked about once, and ended coordinators cost nothing. `now` is the time of
    day.

    Costs one list, and one read for each coordinator of another machine with a heartbeat.
    """

    def __init__(self, bucket: Bucket, keys: ProjectKeys, *, sure: Detector, now: float) -> None:
        self._bucket = bucket
        self._keys = keys
        self._sure = sure
        self._signs: dict[str, CoordinatorSign] = {}
        self._coordinators: dict[str, Coordinator] = {}
        self.now = now

    @cached_property
    def _beating(self) -> frozenset[str]:
        return frozenset(name.rstrip("/") for name in self._bucket.children(self._keys.coordinators))

    def sign(self, coordinator: Coordinator) -> CoordinatorSign:
        if coordinator.id not in self._signs:
            self._signs[coordinator.id] = self._ask(coordinator)
        return self._signs[coordinator.id]

    def _ask(self, coordinator: Coordinator) -> CoordinatorSign:
        sure = self._sure(coordinator)
        # No heartbeat: it has left, or it has never claimed anything. Only its lock on this machine can tell.
        if coordinator.id not in self._beating:
            return CoordinatorSign(alive=sure is True)
        beat = decode_beat(self._bucket.get(self._keys.heartbeat(coordinator.id)))
        if sure is False:
            standby = beat.standby if 0 <= self.now - beat.at < SILENT_BEAT_S else ()
            return CoordinatorSign(alive=False, last_beat=beat.at if standby else 0.0, standby=standby)
        if sure:
            return CoordinatorSign(alive=True, unreachable=beat.unreachable, sightings=beat.sightings, waits=beat.waits)
        # It could not beat any longer than its credentials lasted: that is the reason of its silence.
        if beat.until and beat.at <= beat.until < self.now:
            return CoordinatorSign(alive=False, last_beat=beat.at, credentials_end=beat.until)
        alive = not beat.at or self.now - beat.at < SILENT_BEAT_S
        return CoordinatorSign(
            alive=alive,
            last_beat=beat.at,
            unreachable=beat.unreachable,
            sightings=beat.sightings,
            waits=beat.waits,
            standby=beat.standby if alive and 0 < beat.at < self.now - LATE_BEAT_S else (),
        )

    def sightings(self, run: RunKeys, names: Iterable[str]) -> Mapping[str, str]:
        """Sightings of attempts of other accounts by living coordinators of the run, by the nonces of the attempts."""
        found: dict[str, str] = {}
        for coordinator in self._coordinators_of(run, names).values():
            sign = self.sign(coordinator)
            found.update(sign.sightings if sign.alive else {})
        return found

    def waits(self, run: RunKeys, names: Iterable[str]) -> Mapping[str, str]:
        """The reasons for which jobs of the run wait, by workflow, where all living coordinators of the run give a
        reason.

        Where a coordinator gives none for a job, the job waits for a slot there.
        """
        coordinators = self._coordinators_of(run, names).items()
        signs = ((name, self.sign(each)) for name, each in coordinators)
        reasons = [(name, sign.waits.get(run.run, {})) for name, sign in signs if sign.alive]
        found: dict[str, str] = {}
        for workflow in set.intersection(*(set(waits) for _, waits in reasons)) if reasons else ():
            found[workflow] = "; ".join(dict.fromkeys(waits[workflow] for _, waits in sorted(reasons)))
        return found

    def _coordinators_of(self, run: RunKeys, names: Iterable[str]) -> dict[str, Coordinator]:
        """The coordinators of the run with a heartbeat; each is read once."""
        for name in names:
            if name in self._beating and name not in self._coordinators:
                body = self._bucket.get(run.coordinator(name))
                if body is not None:
                    self._coordinators[name] = unpack(Coordinator, run.coordinator(name), body)
        return {name: self._coordinators[name] for name in names if name in self._coordinators}

    def caretakers(
        self, run: RunKeys, names: Iterable[str], owners: Iterable[Coordinator], submitted: float
    ) -> Caretakers | None:
        """The living coordinators of the run, among the named ones and the owners of its attempts; None for a very new
        run."""
        coordinators = {owner.id: owner for owner in owners}
        coordinators |= self._coordinators_of(run, [name for name in names if name not in coordinators])
        signs = [(self.sign(each), at_machine(each.user, each.machine)) for each in coordinators.values()]
        by = tuple(sorted({who for sign, who in signs if sign.alive}))
        silent = [(sign.last_beat, who, sign.standby) for sign, who in signs if sign.standby]
        # Hosts in stand-by go on by themselves: nobody should be told to attach before that.
        if silent and all(sign.standby for sign, _ in signs if sign.alive):
            beat_at, last, standby = max(silent)
            return Caretakers(by=by, last=last, last_beat=beat_at, standby=standby)
        if by:
            return Caretakers(by=by)
        if 0 <= self.now - submitted < NEW_RUN_S:
            return None
        beat_at, last, ended = max(
            ((sign.last_beat, who, sign.credentials_end) for sign, who in signs), default=(0.0, "", 0.0)
        )
        return Caretakers(last=last, last_beat=beat_at, credentials_end=ended)
