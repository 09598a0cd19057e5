"""Mutants of objects of a bucket that are damaged, gone or missing from a list."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = ()
