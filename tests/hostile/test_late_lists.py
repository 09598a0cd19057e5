"""Nothing is decided by what a list lacks: a store that answers lists late costs requests, never a second run.

The judge: marks that the jobs make, exit codes, bytes that are pulled, and `fsck` past the proxy. DSTACK_ROUNDS plays
more seeds.
"""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.buckets.late_lists import KINDS, LateListProxy
from tests.support.buckets.object_stores import ObjectStore, ministack
from tests.support.people.laptop import Laptop
from tests.support.waiting import until

ROUNDS = int(os.environ.get("DSTACK_ROUNDS", "1"))
STORES = [(seed, kind) for seed in range(ROUNDS) for kind in KINDS]
WORKFLOWS = """
workflows:
  - name: prepare
    depends-on: {{repo: {{include: []}}}}
    commands: ["echo prepare $run_name >> {marks}", "printf '1 2 3\\n' > data"]
    artifacts: [data]
  - name: train
    depends-on: {{repo: {{include: []}}, workflows: [prepare]}}
    commands: ["echo train $run_name >> {marks}", "(cat data; echo lr=$lr) > model", "echo trained with $lr"]
    artifacts: [model]
  - name: slow
    depends-on: {{repo: {{include: []}}, workflows: [prepare]}}
    commands: ["echo slow $run_name >> {marks}", "while [ ! -e {marks}.gate ]; do sleep 0.1; done", "cp data model"]
    artifacts: [model]
  - name: last
    depends-on: {{repo: {{include: []}}, workflows: [prepare, slow]}}
    commands: ["echo last $run_name >> {marks}", "cat data model > sum"]
    artifacts: [sum]
"""


class Team:
    """Two people with one project and one store, each on a machine of their own that is a host too."""

    def __init__(self, folder: Path, store: ObjectStore, proxy: LateListProxy, name: str) -> None:
        self.marks = folder / "marks"
        self.url = store.make(name)
        self.laptops = [self._laptop(folder / who, store, proxy.url) for who in ("alice", "bob")]
        self.laptops[0].dstack("init", "--bucket", self.url)
        proxy.late = True

    def _laptop(self, folder: Path, store: ObjectStore, endpoint: str) -> Laptop:
        laptop = Laptop(folder)
        laptop.environment |= {**store.environment, "AWS_ENDPOINT_URL": endpoint}
        laptop.write(
            {
                ".dstack/workflows.yaml": WORKFLOWS.format(marks=self.marks),
                ".dstack/variables.yaml": "variables:\n  train:\n    lr: 0.1\n",
                ".dstack/config.yaml": f"bucket: {self.url}\nproject: shared\n",
            }
        )
        laptop.commit()
        return laptop

    def begun(self, workflow: str) -> int:
        """How many jobs of that workflow began, by their own marks."""
        lines = self.marks.read_text().splitlines() if self.marks.exists() else []
        return sum(line.startswith(f"{workflow} ") for line in lines)


def judged(team: Team, store: ObjectStore) -> None:
    """Seen past the proxy, the bucket is whole, once what a prune did not see in its lists has gone with the next."""
    laptop = team.laptops[0]
    laptop.environment["AWS_ENDPOINT_URL"] = store.endpoint
    laptop.dstack("prune", "--yes")
    laptop.dstack("fsck", "--deep")


@pytest.mark.parametrize(("seed", "kind"), STORES)
def test_no_job_runs_twice_whatever_the_lists_lack(tmp_path: Path, seed: int, kind: str) -> None:
    store = ministack()
    with LateListProxy(store.endpoint, seed=seed, kind=kind) as proxy:
        team = Team(tmp_path, store, proxy, f"late-{seed}-{kind}")
        alice, bob = team.laptops
        with ThreadPoolExecutor(2) as pool:
            runs = list(pool.map(lambda laptop: laptop.run_json("train"), team.laptops))
        runs += [bob.run_json("train"), alice.run_json("train")]
        assert [run["status"] for run in runs] == ["succeeded"] * 4
        assert (team.begun("prepare"), team.begun("train")) == (1, 1)
        for laptop, run in zip(team.laptops, (runs[1], runs[0]), strict=True):
            out = laptop.root.parent / "out"
            laptop.dstack("artifacts", "pull", run["run"], "train", "-o", str(out))
            assert [path.read_text() for path in out.rglob("model")] == ["1 2 3\nlr=0.1\n"]
            assert "trained with 0.1" in laptop.dstack("logs", run["run"], "train").stdout
        assert proxy.left_out
        judged(team, store)


@pytest.mark.parametrize(("seed", "kind"), STORES)
def test_whoever_goes_on_with_a_run_finds_what_was_done(tmp_path: Path, seed: int, kind: str) -> None:
    """A laptop is killed while its job is at work; the run is taken up there, and by another run that waits for it."""
    store = ministack()
    with LateListProxy(store.endpoint, seed=seed, kind=kind) as proxy:
        team = Team(tmp_path, store, proxy, f"goes-on-{seed}-{kind}")
        alice = team.laptops[0]
        first = alice.start("run", "slow", "--json")
        until("the job is at work", lambda: team.begun("slow"), seconds=60)
        first.kill()
        first.communicate()
        second = alice.start("run", "slow", "--json")
        Path(f"{team.marks}.gate").touch()
        out, err = second.communicate(timeout=120)
        assert second.returncode == 0, err
        assert json.loads(out)["status"] == "succeeded"
        assert (team.begun("prepare"), team.begun("slow")) == (1, 1)
        judged(team, store)


@pytest.mark.parametrize(("seed", "kind"), STORES)
def test_a_prune_takes_nothing_that_a_run_uses(tmp_path: Path, seed: int, kind: str) -> None:
    """A prune of all that nobody uses beside a run that will need an old result: it is not made anew."""
    store = ministack()
    with LateListProxy(store.endpoint, seed=seed, kind=kind) as proxy:
        team = Team(tmp_path, store, proxy, f"prune-{seed}-{kind}")
        alice, bob = team.laptops
        proxy.late = False
        alice.run_json("train")
        proxy.late = True
        waiting = bob.start("run", "last", "--json")
        until("the job is at work", lambda: team.begun("slow"), seconds=60)
        alice.dstack("prune", "--keep", "0", "--older-than", "0s", "--yes")
        shutil.rmtree(bob.home / ".dstack" / "store")
        Path(f"{team.marks}.gate").touch()
        out, err = waiting.communicate(timeout=120)
        assert waiting.returncode == 0, err
        assert (team.begun("prepare"), team.begun("slow"), team.begun("last")) == (1, 1, 1)
        bob.dstack("artifacts", "pull", json.loads(out)["run"], "last", "-o", str(tmp_path / "out"))
        assert [path.read_text() for path in (tmp_path / "out").rglob("sum")] == ["1 2 3\n1 2 3\n"]
        judged(team, store)
