"""Who looks after a run that is not final, told at once: by locks of this machine, and by heartbeats as they stand.

For people alone. Nothing is taken over on this: that waits for a silence of the observer's own clock (observing.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from dstack.app.protocol.lease import BEAT, SILENCE
from dstack.app.queries.views import Tended
from dstack.bounds import REMARK
from dstack.core.format.keys import ProjectKeys, RunKeys
from dstack.core.format.records import Coordinator, at_machine, unpack
from dstack.core.sightings import Sighting
from dstack.ports import Bucket

Detector = Callable[[Coordinator], bool | None]
MOST_HOSTS = 100
"""Hosts in stand-by that are taken from one heartbeat."""
LONGEST_NAME = 255
"""Characters of the name of a host in a heartbeat; a longer one is none."""
FRESH = 15.0
"""Seconds after its submission in which a run may have no coordinator yet."""
LATE = 3 * BEAT
"""Seconds since the last beat after which it is said."""
QUIET = 2 * SILENCE
"""Seconds since the last sign after which a coordinator elsewhere is called silent; clocks differ a little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """Whether a coordinator lives as far as can be told now, when it was heard of last (0.0: not known), and, where it
    is silent because of that, when the credentials ended that it had been lent."""

    alive: bool
    seen: float = 0.0
    over: float = 0.0
    unreachable: Mapping[str, float] = field(default_factory=dict)
    """Attempts that it cannot reach, and since when, by their nonces."""
    sightings: Mapping[str, str] = field(default_factory=dict)
    """What it sees of attempts of other accounts on hosts that it reaches, by their nonces."""
    waits: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """What jobs wait for as far as the coordinator knows, by run id and workflow."""
    standby: tuple[str, ...] = ()
    """The hosts that stand by for it and are expected to go on, where it is silent."""


class Look:
    """One look at coordinators: each is asked about once, and those that ended cost nothing. `now` is the time of day.

    Costs one list, and one read for each coordinator that has a heartbeat and is not of this machine.
    """

    def __init__(self, bucket: Bucket, keys: ProjectKeys, *, sure: Detector, now: float) -> None:
        self._bucket = bucket
        self._keys = keys
        self._sure = sure
        self._signs: dict[str, Sign] = {}
        self._coordinators: dict[str, Coordinator] = {}
        self.now = now

    @cached_property
    def _beating(self) -> frozenset[str]:
        return frozenset(name.rstrip("/") for name in self._bucket.children(self._keys.coordinators))

    def sign(self, coordinator: Coordinator) -> Sign:
        if coordinator.id not in self._signs:
            self._signs[coordinator.id] = self._ask(coordinator)
        return self._signs[coordinator.id]

    def _ask(self, coordinator: Coordinator) -> Sign:
        sure = self._sure(coordinator)
        if coordinator.id not in self._beating:
            return Sign(alive=sure is True)
        beat = _fields(self._bucket.get(self._keys.heartbeat(coordinator.id)))
        seen, until, lost = _time(beat.get("at")), _time(beat.get("until")), _times(beat.get("unreachable"))
        seen_there, waits = _sightings(beat.get("sightings")), _waits(beat.get("waits"))
        if sure is False:
            standby = _names(beat.get("standby")) if 0 <= self.now - seen < QUIET else ()
            return Sign(alive=False, seen=seen if standby else 0.0, standby=standby)
        if sure:
            return Sign(alive=True, unreachable=lost, sightings=seen_there, waits=waits)
        if until and seen <= until < self.now:
            return Sign(alive=False, seen=seen, over=until)
        alive = not seen or self.now - seen < QUIET
        standby = _names(beat.get("standby")) if alive and 0 < seen < self.now - LATE else ()
        return Sign(alive=alive, seen=seen, unreachable=lost, sightings=seen_there, waits=waits, standby=standby)

    def sightings(self, run: RunKeys, names: Iterable[str]) -> Mapping[str, str]:
        """What living coordinators that the run names see of attempts of other accounts, by their nonces."""
        found: dict[str, str] = {}
        for coordinator in self._known(run, names).values():
            sign = self.sign(coordinator)
            found.update(sign.sightings if sign.alive else {})
        return found

    def waits(self, run: RunKeys, names: Iterable[str]) -> Mapping[str, str]:
        """What jobs of the run wait for, by workflow, where all living coordinators that the run names say so: a job of
        which one says nothing waits for a slot there."""
        known = self._known(run, names).items()
        said = [(name, sign.waits.get(run.run, {})) for name, each in known if (sign := self.sign(each)).alive]
        found: dict[str, str] = {}
        for workflow in set.intersection(*(set(waits) for _, waits in said)) if said else ():
            found[workflow] = "; ".join(dict.fromkeys(waits[workflow] for _, waits in sorted(said)))
        return found

    def _known(self, run: RunKeys, names: Iterable[str]) -> dict[str, Coordinator]:
        """The coordinators that the run names and that have a heartbeat; each is read once."""
        for name in names:
            if name in self._beating and name not in self._coordinators:
                body = self._bucket.get(run.coordinator(name))
                if body is not None:
                    self._coordinators[name] = unpack(Coordinator, run.coordinator(name), body)
        return {name: self._coordinators[name] for name in names if name in self._coordinators}

    def tended(
        self, run: RunKeys, names: Iterable[str], owners: Iterable[Coordinator], submitted: float
    ) -> Tended | None:
        """Who looks after the run, by the coordinators that it names and the owners of its attempts; None while it is
        too young to say."""
        known = {owner.id: owner for owner in owners}
        known |= self._known(run, [name for name in names if name not in known])
        signs = [(self.sign(each), at_machine(each.user, each.machine)) for each in known.values()]
        by = tuple(sorted({who for sign, who in signs if sign.alive}))
        silent = [(sign.seen, who, sign.standby) for sign, who in signs if sign.standby]
        if silent and all(sign.standby for sign, _ in signs if sign.alive):
            seen, last, standby = max(silent)
            return Tended(by=by, last=last, seen=seen, standby=standby)
        if by:
            return Tended(by=by)
        if 0 <= self.now - submitted < FRESH:
            return None
        seen, last, over = max(((sign.seen, who, sign.over) for sign, who in signs), default=(0.0, "", 0.0))
        return Tended(last=last, seen=seen, over=over)


def _fields(beat: bytes | None) -> Mapping[str, object]:
    """What a heartbeat says; nothing where there is none, whatever the bytes."""
    try:
        fields = json.loads(beat or b"")
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _time(at: object) -> float:
    """A time of day; 0.0 for what is none."""
    return float(at) if isinstance(at, int | float) and not isinstance(at, bool) and 0 < at < 1e11 else 0.0


def _times(found: object) -> Mapping[str, float]:
    """The times of day of a map."""
    known = found if isinstance(found, dict) else {}
    return {str(name): since for name, at in known.items() if (since := _time(at))}


def _waits(found: object) -> Mapping[str, Mapping[str, str]]:
    """What jobs wait for, of a map of maps; what is none is left out, and a text cut where a beat would have."""
    known = found if isinstance(found, dict) else {}
    return {
        str(run): {str(name): text[:REMARK] for name, text in jobs.items() if isinstance(text, str) and text.strip()}
        for run, jobs in known.items()
        if isinstance(jobs, dict)
    }


def _names(found: object) -> tuple[str, ...]:
    """The names of a list; what is none is left out."""
    known = found if isinstance(found, list) else []
    return tuple(name for name in known[:MOST_HOSTS] if isinstance(name, str) and 0 < len(name) <= LONGEST_NAME)


def _sightings(found: object) -> Mapping[str, str]:
    """The sightings of a map; what is none is left out."""
    known = found if isinstance(found, dict) else {}
    values = {sighting.value for sighting in Sighting}
    return {str(nonce): seen for nonce, seen in known.items() if isinstance(seen, str) and seen in values}
