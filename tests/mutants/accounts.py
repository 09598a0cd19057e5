"""Mutants of a host that several accounts share: whose an attempt is, and who may judge it."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = ()
