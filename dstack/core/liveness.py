"""Is a coordinator alive? Decided from what this observer saw itself, by its own clock."""

from __future__ import annotations

from dataclasses import dataclass, replace

SILENCE = 120.0
"""Seconds (of the observer's boot time) without change after which a coordinator counts as dead."""
READS = 3
"""Reads that must have shown the same heartbeat, spread over the silence."""
BEAT = 15.0
"""Seconds between two heartbeats of one coordinator."""
LATE = 20.0
"""Seconds without change after which whoever can be asked for certainty is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The heartbeat that was seen last, since when it has not changed, and how often it was read since."""

    beat: bytes | None
    since: float
    reads: int = 1


def observe(previous: Observation | None, beat: bytes | None, now: float) -> Observation:
    """The observation after one more read; any change starts anew."""
    if previous is None or previous.beat != beat:
        return Observation(beat=beat, since=now)
    return replace(previous, reads=previous.reads + 1)


def late(seen: Observation, now: float) -> bool:
    """Whether a heartbeat is overdue, which alone says nothing."""
    return now - seen.since >= LATE


def silent(seen: Observation, now: float) -> bool:
    """Whether the silence is long enough to take over."""
    return seen.reads >= READS and now - seen.since >= SILENCE
