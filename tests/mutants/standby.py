"""Mutants of runs that their laptop still looks after, left to hosts in stand-by."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = ()
