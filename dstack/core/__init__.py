"""Decisions. Nothing here reads a clock, a file, an environment or chance: all of those are arguments."""
