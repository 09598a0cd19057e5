"""Interleaved measuring: subject and anchor in turns (A B A B …), so that what else the machine does hits both."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

Probe = Callable[[], float]
"""Does one thing once and returns the figure of it: seconds, or a rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. `subject` and `anchor` are what was measured, in `unit`, one pair for each round.

    `anchor` is empty where the goal is an absolute figure. `more` says that higher is better, as for rates.
    """

    name: str
    against: str
    unit: str
    subject: tuple[float, ...]
    anchor: tuple[float, ...] = ()
    goal: float
    more: bool = False

    @property
    def middle(self) -> float:
        """The figure that the goal is for: the ratio of the medians, or the median where there is no anchor."""
        return median(self.subject) / (median(self.anchor) if self.anchor else 1.0)

    @property
    def best(self) -> float:
        """The same of the least disturbed rounds."""
        pick = max if self.more else min
        return pick(self.subject) / (pick(self.anchor) if self.anchor else 1.0)

    @property
    def met(self) -> bool:
        return self.middle >= self.goal if self.more else self.middle <= self.goal


def seconds(act: Callable[[], object]) -> Probe:
    """A probe that times `act`."""

    def probe() -> float:
        start = time.perf_counter()
        act()
        return time.perf_counter() - start

    return probe


def interleaved(subject: Probe, anchor: Probe, *, rounds: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The figures of both, after one round that does not count: caches, bytecode and connections are then warm."""
    subject()
    anchor()
    pairs = [(subject(), anchor()) for _ in range(rounds)]
    return tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)


def scaled(values: tuple[float, ...], factor: float) -> tuple[float, ...]:
    return tuple(value * factor for value in values)


HEADINGS = ("figure", "median", "min", "against", "median", "min", "ratio", "of mins", "goal", "")


def table(rows: list[Row]) -> str:
    """All rows, the columns aligned. "min" is the best round: of a rate the highest."""
    cells = [HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADINGS))]
    left = (0, 3, 9)
    lines = [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _cells(row: Row) -> tuple[str, ...]:
    sign = "×" if row.anchor else f" {row.unit}"
    return (
        row.name,
        *_measured(row.subject, row),
        row.against if row.anchor else "",
        *(_measured(row.anchor, row) if row.anchor else ("", "")),
        *(f"{value:.2f} ×" if row.anchor else "" for value in (row.middle, row.best)),
        f"{'≥' if row.more else '≤'} {row.goal:g}{' ' if row.anchor else ''}{sign}",
        "met" if row.met else "MISSED",
    )


def _measured(values: tuple[float, ...], row: Row) -> tuple[str, str]:
    best = (max if row.more else min)(values)
    return f"{median(values):.1f} {row.unit}", f"{best:.1f} {row.unit}"
