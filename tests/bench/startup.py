"""`dstack --version`, `--help` and `ps` as real processes, against the bare interpreter."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from tests.bench.measure import Row, interleaved, scaled, seconds
from tests.bench.place import Place, dstack_script, run_to_end

RUNS = 10
"""Runs in the bucket that `ps` lists."""
WORKFLOWS = """
workflows:
  - name: hello
    commands: ["true"]
"""
GOALS = {"--version": 3.0, "--help": 9.0, "ps": 12.0}


def startup(place: Place, rounds: int) -> Iterator[Row]:
    """One row for each command; `ps` lists `RUNS` runs that really took place."""
    laptop = place.laptop("startup", local=True)
    laptop.write({".dstack/workflows.yaml": WORKFLOWS, ".dstack/variables.yaml": "variables:\n  global:\n    n: 0\n"})
    laptop.commit()
    script = str(dstack_script())
    for number in range(RUNS):
        run_to_end([script, "run", "hello", "--n", str(number)], laptop)
    listed = subprocess.run(
        [script, "ps", "-a", "--json"], cwd=laptop.root, env=laptop.environment, capture_output=True, check=True
    )
    assert listed.stdout.count(b'"submitted"') == RUNS, listed.stdout
    bare = seconds(lambda: run_to_end([sys.executable, "-c", "pass"], laptop))
    for argument, goal in GOALS.items():
        words = [script, argument, *(["-a"] if argument == "ps" else [])]
        ours, theirs = interleaved(seconds(lambda words=words: run_to_end(words, laptop)), bare, rounds=rounds)  # type: ignore[misc]
        yield Row(
            name=f"dstack {argument}",
            against="python -c pass",
            unit="ms",
            subject=scaled(ours, 1e3),
            anchor=scaled(theirs, 1e3),
            goal=goal,
        )
