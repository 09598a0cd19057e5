"""Spans between two times of day, possibly of two clocks, or of a clock set in between."""

from __future__ import annotations

CLOCK_SKEW_S = 300.0
"""The most seconds between two right clocks of one lab."""
LONGEST_SPAN_S = 2 * 366 * 86400.0
"""The most seconds for one job. A longer span means a wrong clock."""


def seconds_between(began: float, now: float) -> float | None:
    """Seconds from one time of day to another, at least 0.0; None where the two clocks cannot both be right."""
    passed = now - began
    # A small negative span is two good clocks; a larger one, or years, is a wrong clock.
    if not -CLOCK_SKEW_S <= passed <= LONGEST_SPAN_S:
        return None
    return max(0.0, passed)
