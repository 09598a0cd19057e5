"""Spans between two times of day, which may be of two clocks, or of one that was set in between."""

from __future__ import annotations

CLOCK_SKEW_S = 300.0
"""Seconds by which clocks of one lab may differ without a word."""
LONGEST_SPAN_S = 2 * 366 * 86400.0
"""Seconds that a job may take. A longer span says that a clock is wrong."""


def seconds_between(began: float, now: float) -> float | None:
    """Seconds from one time of day to another, at least 0.0; None where the two clocks cannot both be right."""
    passed = now - began
    if not -CLOCK_SKEW_S <= passed <= LONGEST_SPAN_S:
        return None
    return max(0.0, passed)
