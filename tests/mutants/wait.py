"""Mutants of jobs that only silent hosts might run."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

PROSPECTS = ("tests/app/test_prospects.py",)
MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        name="waits-for-the-silent-for-ever",
        breaks="a run waits for ever for a host that never answered, because it might have what the job asks for",
        file="dstack/core/placement.py",
        old="all(host.seconds >= limit for host in awaited.values())",
        new="not awaited",
        tests=PROSPECTS,
    ),
    Mutant(
        name="silence-taken-for-inability",
        breaks="a job is given up although a host showed that it can run it, and is only rebooted",
        file="dstack/core/placement.py",
        old="    silent = bool(present) and not likely and ",
        new="    silent = bool(present) and ",
        tests=PROSPECTS,
    ),
)
