"""Decisions. Nothing here reads a clock, a file, an environment or chance: all these are arguments."""
