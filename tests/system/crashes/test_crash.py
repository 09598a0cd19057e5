"""kill -9 of the attached command line at every step: afterwards the run comes to its right end, each job started once.

DSTACK_ROUNDS sets how many steps are tried, spread evenly over those of a whole run; the suite tries a few, a soak 50.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.checkout import ROOT
from tests.support.people.chain import JOBS, chain, slots_are_free
from tests.support.people.laptop import LIMIT, Laptop
from tests.support.waiting import until

ROUNDS = int(os.environ.get("DSTACK_ROUNDS", "6"))
WAITS = """
workflows:
  - name: waits
    commands: ["while [ ! -e {gate} ]; do sleep 0.1; done"]
"""


def run_and_die(laptop: Laptop, at: str) -> tuple[int, list[str]]:
    """`dstack run train` with a kill at step `at` ("7:before") -> its return code, and the steps that it began."""
    trace = laptop.root.parent / "trace"
    environment = {
        **laptop.environment,
        "DSTACK_CRASH_AT": at,
        "DSTACK_CRASH_TRACE": str(trace),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.faults.crashing", "run", JOBS[-1]],
        cwd=laptop.root,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stdout + done.stderr
    return done.returncode, trace.read_text().splitlines()


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The steps of a run that nobody kills."""
    laptop = chain(tmp_path_factory.mktemp("counted"))
    code, trace = run_and_die(laptop, "0:before")
    assert code == 0
    assert sorted(laptop.local_marks()) == sorted(JOBS)
    for step in ("effect HoldSlot", "runner go", "bucket create_from", "effect Release"):
        assert any(step in line for line in trace), f"{step} is not counted"
    return trace


@pytest.mark.parametrize("number", range(ROUNDS))
def test_killed_at_any_step_the_run_comes_to_its_end(number: int, steps: list[str], tmp_path: Path) -> None:
    """None lost, none started twice, by the jobs' own marks; logs and artifacts whole; no slot leaks."""
    at = 1 + number * (len(steps) - 1) // max(1, ROUNDS - 1)
    side = "before" if number % 2 == 0 else "after"
    laptop = chain(tmp_path)
    code, trace = run_and_die(laptop, f"{at}:{side}")
    where = f"killed {side} {trace[-1]}" if code else "ended before the kill"

    known = json.loads(laptop.dstack("ps", "-a", "--json").stdout)
    if known:
        said = laptop.dstack("attach", known[0]["run"], "--json")
    else:
        assert laptop.local_marks() == [], f"{where}: a job started and no run is recorded"
        said = laptop.dstack("run", JOBS[-1], "--json")
    run = json.loads(said.stdout)
    assert [job["status"] for job in run["jobs"]] == ["succeeded"] * len(JOBS), where
    assert laptop.local_marks() == list(JOBS), where
    log = laptop.dstack("logs", run["run"]).stdout
    assert sorted(log.splitlines()) == sorted(f"[{job}] log of {job}" for job in JOBS), where
    laptop.dstack("artifacts", "pull", run["run"], "-o", str(tmp_path / "out"))
    for job in JOBS:
        assert (tmp_path / f"out/{job}/{job}.txt").read_text() == f"out of {job}\n", where
    until("all slots are free", lambda: slots_are_free(laptop))


def test_most_kills_hit(steps: list[str], tmp_path: Path) -> None:
    """The middle step of a run is one at which the launcher really dies."""
    code, trace = run_and_die(chain(tmp_path), f"{len(steps) // 2}:before")
    assert code == -signal.SIGKILL
    assert len(trace) >= len(steps) // 2


def test_what_a_killed_launcher_left_on_the_host_goes_with_the_next_run(tmp_path: Path) -> None:
    """It died between the record of the end and the word to the host that it may forget the attempt."""
    laptop = chain(tmp_path)
    code, trace = run_and_die(laptop, "effect Release:before")
    assert code == -signal.SIGKILL
    assert "effect Release" in trace[-1]
    spool = laptop.home / ".dstack/spool"
    [left] = spool.glob("*/exit.json")
    gate = tmp_path / "gate"
    laptop.write({".dstack/workflows.yaml": WAITS.format(gate=gate)})
    process = laptop.start("run", "waits")
    try:
        until("the host has forgotten it", lambda: not left.exists(), seconds=60)
    finally:
        gate.touch()
        process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    assert not list(spool.iterdir())
