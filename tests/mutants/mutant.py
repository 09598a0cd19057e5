"""What a mutant is."""

from __future__ import annotations

from dataclasses import dataclass

PROTOCOL = ("tests/app/protocol/test_simulator.py",)
"""The simulator: the tests of whatever breaks the protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One change of the shipped source: `old`, which stands once in `file`, becomes `new`; `tests` must then fail."""

    name: str
    breaks: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
