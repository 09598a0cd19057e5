"""Mutants of ends of jobs: stops, lost logs, full disks."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        name="stop-waits-for-the-frozen",
        breaks="a stop waits for a runner that gives no sign of life",
        file="dstack/app/driver.py",
        old="return await self._ask(claim, lambda _: ask_living(link, stop))",
        new="return await self._ask(claim, stop)",
        tests=("tests/hostile/test_stops.py",),
    ),
    Mutant(
        name="stop-waits-for-its-owner",
        breaks="a stop waits for a coordinator that holds its lock and does nothing",
        file="dstack/app/settling.py",
        old="if late >= STOPPED or (yield Alive(live.owner, live.claim)) is False:",
        new="if (yield Alive(live.owner, live.claim)) is False:",
        tests=("tests/app/test_stopping.py",),
    ),
)
