"""Mutants of ends of jobs: stops, lost logs, full disks."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = ()
