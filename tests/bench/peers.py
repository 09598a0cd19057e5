"""Coordinators on hosts: from a submit to a claim, from a killed host to its job elsewhere; the hand-over of a slot."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from tests.bench.measure import Row
from tests.bench.place import Place, dstack_script, run_to_end
from tests.support.hosts.farm import Farm, TestHost
from tests.support.people.laptop import Laptop
from tests.support.people.pipeline import entry, write_inventory
from tests.support.waiting import until

MARKS = "/home/alice/turns"
QUEUE = 12
WAITING = f"""
workflows:
  - name: awake
    commands: ['while [ ! -e /home/alice/done ]; do sleep 0.1; done']
  - name: quick
    reuse: false
    commands: [': quick']
  - name: long
    reuse: false
    retry: {{attempts: 2, on: [lost]}}
    commands: ['echo long >> {MARKS}', 'while [ ! -e /home/alice/done ]; do sleep 0.1; done']
"""


def peers(place: Place, rounds: int) -> Iterator[Row]:
    """Two hosts that share a folder as bucket."""
    bucket = place.folder / "shared"
    bucket.mkdir()
    farm = Farm(public_key=place.home.key.public)
    try:
        hosts = farm.start(2, shared=bucket)
        place.home.trust(*hosts)
        laptop = place.laptop("peers", local=True)
        laptop.environment["DSTACK_BUCKET"] = str(bucket)
        laptop.write({".dstack/workflows.yaml": WAITING})
        laptop.commit()
        key = place.home.key.file
        write_inventory(laptop, {"gpu-1": entry(hosts[0], key, slots=4)})
        yield Row(
            name="submit to claimed, awake",
            against="",
            unit="ms",
            subject=tuple(_submits(laptop, bucket, rounds)),
            goal=200.0,
        )
        write_inventory(laptop, {f"gpu-{number}": entry(host, key, slots=4) for number, host in enumerate(hosts, 1)})
        yield Row(
            name="killed host to job elsewhere", against="", unit="s", subject=(_killed(laptop, hosts),), goal=150.0
        )
    finally:
        farm.close()


def _submits(laptop: Laptop, bucket: Path, rounds: int) -> Iterator[float]:
    """Milliseconds from a run's record to the claim of its job, by the times of the bucket's own files."""
    script = str(dstack_script())
    run_to_end([script, "run", "-d", "awake"], laptop)
    for _ in range(rounds):
        before = _times(bucket, "runs/*/run.json"), _times(bucket, "jobs/*/*/claim/*")
        run_to_end([script, "run", "-d", "quick"], laptop)
        until("it is claimed", lambda before=before: len(_times(bucket, "jobs/*/*/claim/*")) > len(before[1]))  # type: ignore[misc]
        after = _times(bucket, "runs/*/run.json"), _times(bucket, "jobs/*/*/claim/*")
        [run], [claim] = (set(now) - set(then) for now, then in zip(after, before, strict=True))
        yield (claim - run) / 1e6


def _times(bucket: Path, pattern: str) -> list[int]:
    return [path.stat().st_mtime_ns for path in bucket.glob(f"projects/*/{pattern}")]


def _killed(laptop: Laptop, hosts: Sequence[TestHost]) -> float:
    """Seconds from the end of a host to the same job's start on the other one."""
    script = str(dstack_script())
    subprocess.run(
        [script, "run", "-d", "long"], cwd=laptop.root, env=laptop.environment, check=True, capture_output=True
    )
    until("it runs", lambda: any(_marks(host) for host in hosts), seconds=60)
    died = next(host for host in hosts if _marks(host))
    other = next(host for host in hosts if host is not died)
    began = time.monotonic()
    died.kill()
    until("it runs elsewhere", lambda: _marks(other), seconds=300)
    return time.monotonic() - began


def _marks(host: TestHost) -> list[str]:
    done = host.exec(["cat", MARKS])
    return done.output.decode().splitlines() if done.code == 0 else []


def turns(place: Place, rounds: int) -> Iterator[Row]:
    """Equal jobs on one slot: from the last act of one to the first of the next, by the jobs' own clock."""
    names = [f"turn-{number}" for number in range(QUEUE)]
    jobs = "".join(
        f"  - name: {name}\n    reuse: false\n    commands: ['echo $(date +%s%N) begin {name} >> {MARKS}', "
        f"'echo $(date +%s%N) end {name} >> {MARKS}']\n"
        for name in names
    )
    last = f"  - {{name: all, reuse: false, depends-on: {{workflows: [{', '.join(names)}]}}, commands: ['true']}}\n"
    laptop = place.laptop("turns", slots=1)
    laptop.write({".dstack/workflows.yaml": f"workflows:\n{jobs}{last}"})
    laptop.commit()
    gaps: list[float] = []
    for _ in range(rounds):
        place.host.run(["rm", "-f", MARKS])
        run_to_end([str(dstack_script()), "run", "all"], laptop)
        times = sorted((int(line.split()[0]), line.split()[1]) for line in _marks(place.host))
        gaps += [(b[0] - a[0]) / 1e6 for a, b in pairwise(times) if (a[1], b[1]) == ("end", "begin")]
    yield Row(name="slot from one job to the next", against="", unit="ms", subject=tuple(gaps), goal=50.0)
