"""`dstack ps` on a bucket that holds many runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bench.measure import Row, interleaved, scaled, seconds
from tests.bench.place import Place, dstack_script, run_to_end
from tests.system.old_runs import old_run

RUNS = 10_000
SHOWN = 20


def many(place: Place, rounds: int) -> Iterator[Row]:
    """A folder with `RUNS` final runs, of which `ps` shows the newest; nothing else runs."""
    laptop = place.laptop("many", local=True)
    laptop.write({".dstack/workflows.yaml": "workflows:\n  - {name: w, commands: [':']}\n"})
    laptop.commit()
    bucket = laptop.home / ".dstack/bucket-of-many"
    for index in range(RUNS):
        for key, body in old_run(index).items():
            _lay(bucket / key, body)
    laptop.environment["DSTACK_BUCKET"] = str(bucket)
    script = str(dstack_script())
    listed = subprocess.run(
        [script, "ps", "--json"], cwd=laptop.root, env=laptop.environment, capture_output=True, check=True
    )
    assert [run["run"] for run in json.loads(listed.stdout)] == [f"old-run-{RUNS - 1 - n}" for n in range(SHOWN)]
    ours, theirs = interleaved(
        seconds(lambda: run_to_end([script, "ps"], laptop)),
        seconds(lambda: run_to_end([sys.executable, "-c", "pass"], laptop)),
        rounds=rounds,
    )
    yield Row(
        name=f"dstack ps, {RUNS:,} runs",
        against="python -c pass",
        unit="ms",
        subject=scaled(ours, 1e3),
        anchor=scaled(theirs, 1e3),
        goal=12.0,
    )


def _lay(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_bytes(body)
