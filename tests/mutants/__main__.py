"""Break the shipped source on purpose, once for each guarantee, and see a test fail.

`python -m tests.mutants [NAME …]`: copies the checkout, applies one change, runs the named tests there. A mutant that
survives, or whose place in the source is gone, fails the run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import PROTOCOL, Mutant
from tests.support.checkout import ROOT
from tests.support.simulator.schedules import MUTANT_SCHEDULES

SCHEDULES = {"DSTACK_SEED": "0", "DSTACK_SCHEDULES": str(MUTANT_SCHEDULES)}
"""Mutants of the protocol meet the same schedules on every day."""
LIMIT = 600
"""Seconds that the tests of one mutant may take; a mutant that hangs counts as caught."""


def caught(mutant: Mutant) -> bool:
    """Whether the mutant's tests fail on the changed copy; raises SystemExit when its text is not there once."""
    with tempfile.TemporaryDirectory(prefix="dstack-mutant-") as folder:
        copy = Path(folder) / "checkout"
        ignored = shutil.ignore_patterns(".git", ".nox", ".venv", "__pycache__", ".hypothesis", ".mypy_cache")
        shutil.copytree(ROOT, copy, ignore=ignored)
        path = copy / mutant.file
        source = path.read_text()
        if source.count(mutant.old) != 1:
            raise SystemExit(f"{mutant.name}: its text stands {source.count(mutant.old)} times in {mutant.file}")
        path.write_text(source.replace(mutant.old, mutant.new))
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutant.tests]
        environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
        if mutant.tests == PROTOCOL:
            environment |= SCHEDULES
        try:
            done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=LIMIT, check=False)
        except subprocess.TimeoutExpired:
            return True
        if done.returncode not in (0, 1):
            raise SystemExit(f"{mutant.name}: the tests did not run:\n{done.stdout.decode()[-2000:]}")
        return done.returncode == 1


def main() -> int:
    names = set(sys.argv[1:])
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    survivors = []
    for mutant in chosen:
        verdict = caught(mutant)
        print(f"{'caught  ' if verdict else 'SURVIVED'} {mutant.name}: {mutant.breaks}", flush=True)
        if not verdict:
            survivors.append(mutant.name)
    print(f"{len(chosen) - len(survivors)} passed, {len(survivors)} failed")
    return 1 if survivors or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
