"""Durations and times of day for people. Never raises, for any numbers: clocks and records may be wrong."""

from __future__ import annotations

import time

from dstack.core.time_spans import CLOCK_SKEW_S, seconds_between

WEEK_S = 7 * 86400.0
LONGEST_DURATION_S = 1e11
"""Seconds of the longest duration."""


def duration_text(seconds: float) -> str:
    """`0:07`, `12:05`, `3:04:05`, `2d 03:04`."""
    whole = int(min(max(0.0, seconds), LONGEST_DURATION_S))
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    if days:
        return f"{days}d {hours:02d}:{minutes:02d}"
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"


def since_text(began: float, now: float) -> str:
    """The duration between two times of day; `-` where the clocks cannot both be right."""
    passed = seconds_between(began, now)
    return "-" if passed is None else duration_text(passed)


def clock_text(form: str, seconds: float) -> str:
    """A time of day of this machine's zone, by a format of `strftime`; `-` for a time beyond the calendar."""
    try:
        return time.strftime(form, time.localtime(seconds))
    except (ValueError, OverflowError, OSError):
        return "-"


def ago_text(then: float, now: float) -> str:
    """`just now`, `5 min ago`, `3 h ago`, `2 days ago`; the date beyond a week, and for a time in the future."""
    seconds = now - then
    if not -CLOCK_SKEW_S <= seconds < WEEK_S:
        return clock_text("%Y-%m-%d", then)
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{int(seconds // 60)} min ago"
    if seconds < 86400:
        return f"{int(seconds // 3600)} h ago"
    days = int(seconds // 86400)
    return f"{days} day{'s' if days > 1 else ''} ago"


def silence_text(who: str, heard: float, now: float) -> str:
    """`no sign of alice@laptop for 5 min`; with the date beyond a week."""
    ago = ago_text(heard, now)
    if ago == "just now":
        return f"no sign of {who} for {max(0.0, now - heard):.0f} s"
    since = f"for {ago.removesuffix(' ago')}" if ago.endswith(" ago") else f"since {ago}"
    return f"no sign of {who} {since}"


def age_text(then: float, now: float) -> str:
    """How long ago, for narrow columns: `0m`, `5m`, `3h`, `2d`; the date beyond a week, and for a time in the
    future."""
    seconds = now - then
    if not -CLOCK_SKEW_S <= seconds < WEEK_S:
        return clock_text("%Y-%m-%d", then)
    if seconds >= 86400:
        return f"{int(seconds // 86400)}d"
    return f"{int(seconds // 3600)}h" if seconds >= 3600 else f"{max(0, int(seconds // 60))}m"
