"""Check the Spin models of the protocol, whole, and see that each of its mutants fails.

`python -m tests.model [--require-spin]`: needs `spin` and `gcc`; without them it says so and does nothing, or fails
where they are required.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

KEEPING, ACCOUNTS = (Path(__file__).with_name(name) for name in ("keeping.pml", "accounts.pml"))
PROGRAMS = ("spin", "gcc")
REQUIRED = "--require-spin"
MEMORY = 2500
"""MiB that one search may take."""
LIMIT = 300
"""Seconds that one search may take."""
SEARCHES = 2
"""Searches at a time."""

PRUNE_ONE = ("RUNS=1", "RIVALS=1", "ROUNDS=2")
PRUNE_TWO = ("RUNS=2", "RIVALS=0", "ROUNDS=2")
REUSE = (*PRUNE_ONE, "OLD_RESULT")
CLAIMS = ("RUNS=2", "RIVALS=1", "COLLECTORS=0", "G=1", "A=2")
STOPS = ("RUNS=1", "RIVALS=1", "COLLECTORS=0", "G=1", "A=2", "STOPS")
WORLDS: Mapping[str, tuple[str, ...]] = {
    "two coordinators of one run, a collector": PRUNE_ONE,
    "the same, and an earlier result": REUSE,
    "two runs, a collector": PRUNE_TWO,
    "two coordinators of one run, two collectors": ("RUNS=1", "RIVALS=1", "COLLECTORS=2", "ROUNDS=1", "OLD_RESULT"),
    "three coordinators of two runs, two attempts": CLAIMS,
    "two coordinators of a run that is stopped, two attempts": STOPS,
}
MUTANTS: Mapping[str, tuple[str, ...]] = {
    "NO_TOMB": PRUNE_ONE,
    "LATE_PIN": PRUNE_ONE,
    "LATE_ENTRY": PRUNE_ONE,
    "LATE_LIST": PRUNE_ONE,
    "NO_SECOND_LOOK": PRUNE_ONE,
    "DATA_FIRST": PRUNE_ONE,
    "LONE_WANT": REUSE,
    "BAD_COMMIT": CLAIMS,
    "UNASKED_HOST": CLAIMS,
    "START_UNSTOPPED": STOPS,
}
SHARED_HOSTS: Mapping[str, tuple[str, ...]] = {
    "two accounts on one host": (),
    "the same, and the host falls silent": ("CUTS",),
}
SHARED_HOST_MUTANTS = ("FOREIGN_IS_SILENCE", "UNSEEN_IS_DEATH", "OTHER_MACHINE_IS_RESTART")


def search(model: Path, defines: tuple[str, ...]) -> tuple[bool, str]:
    """Whether nothing is violated in the whole state space, and its size; raises SystemExit when Spin cannot tell."""
    with tempfile.TemporaryDirectory(prefix="dstack-model-") as folder:
        options = [f"-D{each}" for each in defines]
        _call(["spin", "-a", *options, str(model)], folder)
        memory = f"-DMEMLIM={MEMORY}"
        _call(["gcc", "-O2", "-w", "-DSAFETY", "-DCOLLAPSE", memory, "-o", "pan", "pan.c"], folder)
        told = _call(["./pan", "-m200000", "-n"], folder)
    errors, states = re.search(r"errors: (\d+)", told), re.search(r"(\d+) states, stored", told)
    if errors is None or states is None:
        raise SystemExit(f"{' '.join(defines)}: Spin gave no verdict:\n{told[-2000:]}")
    found = int(errors.group(1)) > 0
    if not found and ("MEMLIM" in told or "max search depth too small" in told):
        raise SystemExit(f"{' '.join(defines)}: the search was not whole:\n{told[-2000:]}")
    return not found, f"{int(states.group(1)):,} states"


def _call(command: list[str], folder: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=LIMIT, check=False, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def main() -> int:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        required = REQUIRED in sys.argv
        print(
            f"{'FAILED' if required else 'skipped'}: the model needs {' and '.join(missing)} (apt-get install spin gcc)"
        )
        return 1 if required else 0
    worlds = [(KEEPING, *world) for world in WORLDS.items()] + [(ACCOUNTS, *world) for world in SHARED_HOSTS.items()]
    mutants = [(KEEPING, *mutant) for mutant in MUTANTS.items()] + [
        (ACCOUNTS, each, ()) for each in SHARED_HOST_MUTANTS
    ]
    wrong = 0
    with ThreadPoolExecutor(SEARCHES) as pool:
        held = [pool.submit(search, model, defines) for model, _, defines in worlds]
        broken = [pool.submit(search, model, (*defines, mutant)) for model, mutant, defines in mutants]
        for (_, name, _), verdict in zip(worlds, held, strict=True):
            good, told = verdict.result()
            print(f"{'holds   ' if good else 'VIOLATED'} {name}: {told}", flush=True)
            wrong += not good
        for (_, mutant, _), verdict in zip(mutants, broken, strict=True):
            good, told = verdict.result()
            print(f"{'SURVIVED' if good else 'caught  '} {mutant}: {told}", flush=True)
            wrong += good
    print(f"{len(worlds) + len(mutants) - wrong} passed, {wrong} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
