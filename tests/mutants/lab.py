"""Mutants of what tests may set for an account: which boot a machine is in, and how long a silence lasts."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        name="any-silence",
        breaks="the environment of an account may make the silence as long or as short as it likes",
        file="dstack/core/liveness.py",
        old="    return seconds if SHORTEST_SILENCE_S <= seconds <= LONGEST_SILENCE_S else LONGEST_SILENCE_S\n",
        new="    return seconds\n",
        tests=("tests/unit/core/test_liveness.py",),
    ),
    Mutant(
        name="any-boot-of-a-host",
        breaks="a host takes any word of the environment for its boot id",
        file="dstack/runner/base/processes.py",
        old="    if is_boot_id(forced):\n",
        new="    if forced:\n",
        tests=("tests/unit/runner/base/test_processes.py",),
    ),
    Mutant(
        name="any-boot-of-a-laptop",
        breaks="a laptop takes any word of the environment for its boot id",
        file="dstack/adapters/process_identity.py",
        old="    if is_boot_id(forced):\n",
        new="    if forced:\n",
        tests=("tests/unit/adapters/test_process_identity.py",),
    ),
)
