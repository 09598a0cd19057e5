"""Is a coordinator alive? Decided from the observations of this process alone, by its own clock."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

LONGEST_SILENCE_S = 120.0
"""Seconds (of the observer's boot time) without change after which a coordinator counts as dead."""
SILENT_READS = 3
"""Reads of one unchanged heartbeat, spread over the silence, before a take-over."""
SHORTEST_SILENCE_S = 2.0
"""The least silence, in seconds, that a test may ask for."""
_NUMBER = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The last heartbeat, the time of its first read (seconds), and the number of reads without a change since."""

    beat: bytes | None
    since: float
    reads: int = 1


def observe(previous: Observation | None, beat: bytes | None, now: float) -> Observation:
    """The observation after one more read; any change starts anew."""
    # Any change is a sign of life, also a smaller number: the bytes are compared and never understood.
    if previous is None or previous.beat != beat:
        return Observation(beat=beat, since=now)
    return replace(previous, reads=previous.reads + 1)


def is_overdue(observation: Observation, now: float, *, after: float) -> bool:
    """Whether a heartbeat is overdue, `after` seconds without change; an overdue heartbeat alone says nothing."""
    return now - observation.since >= after


def is_silent(observation: Observation, now: float, *, after: float) -> bool:
    """Whether `after` seconds of silence, seen by SILENT_READS reads, allow to take over."""
    # After a suspend of this machine much time has passed between two reads: several reads must agree.
    return observation.reads >= SILENT_READS and now - observation.since >= after


def silence_of(text: str) -> float:
    """The silence in seconds for which `text` asks, a decimal number from SHORTEST_SILENCE_S to LONGEST_SILENCE_S.

    Any other text gives LONGEST_SILENCE_S: a silence can be shortened and never lengthened.
    """
    seconds = float(text) if _NUMBER.fullmatch(text) else LONGEST_SILENCE_S
    return seconds if SHORTEST_SILENCE_S <= seconds <= LONGEST_SILENCE_S else LONGEST_SILENCE_S
