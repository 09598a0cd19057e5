"""`dstack ps` on a bucket that holds many runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dstack.adapters.bucket.opener import open_bucket
from tests.bench.measure import Row, interleaved, scaled, seconds
from tests.bench.place import Place, dstack_script, run_to_end
from tests.bench.store import server
from tests.support.people.laptop import Laptop
from tests.support.records.old_runs import old_run

RUNS = 10_000
SHOWN = 20


def many(place: Place, rounds: int) -> Iterator[Row]:
    """A folder, and a real object store where the environment names one, with `RUNS` final runs, of which `ps` shows
    the newest; nothing else runs."""
    laptop = place.laptop("many", local=True)
    laptop.write({".dstack/workflows.yaml": "workflows:\n  - {name: w, commands: [':']}\n"})
    laptop.commit()
    bucket = laptop.home / ".dstack/bucket-of-many"
    for index in range(RUNS):
        for key, body in old_run(index).items():
            _lay(bucket / key, body)
    laptop.environment["DSTACK_BUCKET"] = str(bucket)
    yield _listed(laptop, "a folder", rounds, goal=12.0)
    if os.environ.get("DSTACK_S3_ENDPOINT"):
        store = server()
        url = store.make(f"many-{uuid.uuid4().hex[:12]}")
        filled = open_bucket(url, store.options, "/")
        with ThreadPoolExecutor(16) as pool:
            for index in range(RUNS):
                for key, body in old_run(index).items():
                    pool.submit(filled.put, key, body)
        laptop.environment |= {**store.environment, "DSTACK_BUCKET": url}
        yield _listed(laptop, "S3", rounds, goal=20.0)


def _listed(laptop: Laptop, where: str, rounds: int, *, goal: float) -> Row:
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
    return Row(
        name=f"dstack ps, {RUNS:,} runs on {where}",
        against="python -c pass",
        unit="ms",
        subject=scaled(ours, 1e3),
        anchor=scaled(theirs, 1e3),
        goal=goal,
    )


def _lay(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_bytes(body)
