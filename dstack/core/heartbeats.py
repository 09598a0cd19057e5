"""The heartbeat of a coordinator or of a reader as an object of the bucket. docs/format.md is normative.

Only a change of the object counts as a sign of life. The fields are for people, so a field that makes no sense is read
as absent and never as damage.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from dstack.bounds import MAX_REMARK
from dstack.core.foreign_attempts import Sighting

MAX_ATTEMPTS = 1000
"""The most attempts listed as unreachable by a beat, and the most listed as seen."""
MAX_WAITS = 100
"""The most jobs with a reason to wait in a beat."""
MAX_STANDBY_HOSTS = 100
"""Hosts that a beat lists as standing by."""
MAX_HOST_NAME = 255
"""Characters of the name of a host in a beat; a longer name is left out."""
_MAX_TIME = 1e11


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """The fields of a beat beside its number. Times are seconds since the epoch, 0.0 where unknown."""

    at: float = 0.0
    """When the coordinator wrote the beat, by the clock of its machine."""
    until: float = 0.0
    """When the lent credentials of the coordinator end."""
    unreachable: Mapping[str, float] = field(default_factory=dict)
    """Since when the hosts of attempts have not answered, by the nonces of the attempts."""
    sightings: Mapping[str, str] = field(default_factory=dict)
    """Values of `Sighting` of attempts of other accounts, by the nonces of the attempts."""
    waits: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The reasons for which jobs wait, by run id and workflow."""
    standby: tuple[str, ...] = ()
    """Names of the hosts that stand by for the coordinator."""


def encode_beat(number: int, beat: Heartbeat = Heartbeat()) -> bytes:
    """The body of beat `number`, counted from 0; times in whole seconds, empty fields left out."""
    fields: dict[str, Any] = {"beat": number}
    if beat.at:
        fields["at"] = int(beat.at)
    if beat.until:
        fields["until"] = int(beat.until)
    if beat.unreachable:
        fields["unreachable"] = {nonce: int(at) for nonce, at in islice(beat.unreachable.items(), MAX_ATTEMPTS)}
    if beat.sightings:
        fields["sightings"] = dict(islice(beat.sightings.items(), MAX_ATTEMPTS))
    if beat.waits:
        fields["waits"] = {run: dict(jobs) for run, jobs in beat.waits.items()}
    if beat.standby:
        fields["standby"] = list(beat.standby[:MAX_STANDBY_HOSTS])
    return json.dumps(fields, separators=(",", ":")).encode()


def decode_beat(body: bytes | None) -> Heartbeat:
    """The fields of a beat; empty for None and for any other bytes that are no beat."""
    try:
        fields = json.loads(body or b"")
    # Whoever can write to the bucket may have put anything there, also JSON of any depth.
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        return Heartbeat()
    return Heartbeat(
        at=_time(fields.get("at")),
        until=_time(fields.get("until")),
        unreachable=_times(fields.get("unreachable")),
        sightings=_sightings(fields.get("sightings")),
        waits=_waits(fields.get("waits")),
        standby=_host_names(fields.get("standby")),
    )


def _time(value: object) -> float:
    """A time of day; 0.0 for any other value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(value) if 0 < value < _MAX_TIME else 0.0


def _times(value: object) -> Mapping[str, float]:
    """The times of day of a mapping."""
    return {str(name): since for name, at in _items(value) if (since := _time(at))}


def _waits(value: object) -> Mapping[str, Mapping[str, str]]:
    """The texts of a mapping of mappings, each cut where a beat would have cut it; other values are left out."""
    return {
        str(run): {
            str(name): text[:MAX_REMARK] for name, text in jobs.items() if isinstance(text, str) and text.strip()
        }
        for run, jobs in _items(value)
        if isinstance(jobs, dict)
    }


def _sightings(value: object) -> Mapping[str, str]:
    """The sightings of a mapping; other values are left out."""
    known = {sighting.value for sighting in Sighting}
    return {str(nonce): seen for nonce, seen in _items(value) if isinstance(seen, str) and seen in known}


def _host_names(value: object) -> tuple[str, ...]:
    """The names of hosts of a list; other values are left out."""
    # The list is cut on this side too: the other side may be no dstack.
    names = value if isinstance(value, list) else []
    return tuple(name for name in names[:MAX_STANDBY_HOSTS] if isinstance(name, str) and 0 < len(name) <= MAX_HOST_NAME)


def _items(value: object) -> list[tuple[object, object]]:
    return list(value.items()) if isinstance(value, dict) else []
