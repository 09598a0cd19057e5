"""Spans between two times of day, which may be of two clocks, or of one that was set in between."""

from __future__ import annotations

SKEW = 300.0
"""Seconds by which clocks of one lab may differ without a word."""
LONGEST = 2 * 366 * 86400.0
"""Seconds that a job may take. A longer span says that a clock is wrong."""


def span(began: float, now: float) -> float | None:
    """Seconds from one time of day to another, at least 0.0; None where the two clocks cannot both be right."""
    passed = now - began
    if not -SKEW <= passed <= LONGEST:
        return None
    return max(0.0, passed)
