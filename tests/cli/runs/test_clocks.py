"""A laptop whose clock is 20 years off, or jumps by that while a run is at work: nothing is wrong but the dates."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.people.laptop import LIMIT, Laptop, names

YEARS = 20 * 365 * 86400
JUMPING = """
import os, time
_true = time.time
def _jumping():
    try:
        with open(os.environ["CLOCK"]) as file:
            return _true() + float(file.read() or 0)
    except OSError:
        return _true()
time.time = _jumping
time.localtime = lambda at=None, _true=time.localtime: _true(_jumping() if at is None else at)
"""
FILES = {
    ".dstack/workflows.yaml": """\
workflows:
  - name: quick
    commands: [echo quick > out]
    artifacts: [out]
  - name: slow
    depends-on: [quick]
    commands: ['while [ ! -e "$GATE" ]; do sleep 0.05; done', cat out]
    env: [GATE]
""",
}
pytestmark = pytest.mark.timeout(200)


class SkewedLaptop(Laptop):
    """A project on a laptop whose clock the test sets, in all processes of dstack but the runner's and the jobs'."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, user="alice", columns=80)
        (folder / "site").mkdir()
        (folder / "site/sitecustomize.py").write_text(JUMPING)
        self.clock = folder / "clock"
        self.gate = folder / "gate"
        path = os.pathsep.join(filter(None, [str(folder / "site"), os.environ.get("PYTHONPATH", "")]))
        self.environment |= {"PYTHONPATH": path, "CLOCK": str(self.clock), "GATE": str(self.gate)}
        self.write(FILES)
        self.git()

    def set_clock(self, offset: float) -> None:
        """So many seconds away from the truth, at one moment for all."""
        new = self.clock.with_suffix(".new")
        new.write_text(str(offset))
        new.replace(self.clock)

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LIMIT
        while not holds():
            assert time.monotonic() < deadline, what
            time.sleep(0.1)

    def tell(self, *arguments: str, code: int = 0) -> str:
        done = self.run(*arguments)
        assert "Traceback" not in done.err
        assert done.code == code, done.out + done.err
        return done.out


@pytest.fixture
def laptop(tmp_path: Path) -> SkewedLaptop:
    return SkewedLaptop(tmp_path)


def test_the_clock_of_these_tests_jumps(laptop: SkewedLaptop) -> None:
    laptop.set_clock(YEARS)
    code = "import time; print(time.time())"
    told = subprocess.check_output([sys.executable, "-c", code], env=laptop.environment)
    assert float(told) > time.time() + YEARS - 60


@pytest.mark.parametrize("jump", [YEARS, -YEARS], ids=["ahead", "back"])
def test_a_clock_that_jumps_in_mid_run_changes_nothing(laptop: SkewedLaptop, jump: int) -> None:
    log = laptop.root.parent / "log"
    with log.open("wb") as out:
        command = [sys.executable, "-m", "dstack", "run", "slow"]
        process = subprocess.Popen(command, cwd=laptop.root, env=laptop.environment, stdout=out, stderr=out)
    try:
        laptop.until("slow runs", lambda: "slow: running" in log.read_text())
        laptop.set_clock(jump)
        run = names(log.read_text())[0]
        jobs = {job["workflow"]: job["status"] for job in json.loads(laptop.tell("show", run, "--json"))["jobs"]}
        assert jobs == {"quick": "succeeded", "slow": "running"}
        shown = laptop.tell("show", run) + laptop.tell("ps")
        assert "running" in shown
        assert "7300d" not in shown
        laptop.set_clock(-jump)
        laptop.tell("ps")
        laptop.gate.touch()
        assert process.wait(LIMIT) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text()
    after = json.loads(laptop.tell("show", run, "--json"))
    assert after["status"] == "succeeded"
    # Nothing is made again or lost after the clock was set, wherever it stands.
    for clock in (jump, 0, -jump):
        laptop.set_clock(clock)
        again = json.loads(laptop.tell("run", "slow", "--json"))
        assert {job["reused_from"] for job in again["jobs"]} == {run}
        assert laptop.tell("logs", run, "slow") == "quick\n"
        assert laptop.tell("fsck") == "nothing is wrong\n"


def test_a_run_in_the_background_ends_although_the_clock_jumps(laptop: SkewedLaptop) -> None:
    laptop.set_clock(-YEARS)
    run = names(laptop.tell("run", "slow", "-d"))[0]
    laptop.until("slow runs", lambda: "running" in laptop.tell("show", run).split("slow", 2)[2])
    laptop.set_clock(YEARS)
    laptop.gate.touch()
    laptop.until("it has ended", lambda: json.loads(laptop.tell("show", run, "--json"))["status"] == "succeeded")


def test_a_prune_goes_by_the_clock_of_the_store(laptop: SkewedLaptop) -> None:
    run = json.loads(laptop.tell("run", "quick", "--json"))["run"]
    laptop.set_clock(YEARS)
    assert laptop.tell("prune", "--older-than", "30d", "--yes").startswith("nothing to remove")
    assert "out" in laptop.tell("artifacts", "ls", run)
