"""Mutants of the queue of a host against its worst user, and numbers of foreign hosts."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = ()
