"""Runs on real hosts: three sshd, one of them behind another; what is asserted is read from the hosts themselves."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.hosts.farm import Farm, TestHost
from tests.support.hosts.home import Home
from tests.support.people.laptop import Laptop
from tests.support.people.pipeline import FILES, GATE, KEPT, PREPARE, entry, marks, traffic, write_inventory
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A laptop with the pipeline, and the hosts of its inventory by name."""

    laptop: Laptop
    hosts: dict[str, TestHost]

    @property
    def all(self) -> tuple[TestHost, ...]:
        return tuple(self.hosts.values())

    def open_gates(self) -> None:
        for host in self.all:
            host.run(["touch", GATE], user="alice")


@pytest.fixture
def cluster(farm: Farm, ssh_home: Home, tmp_path: Path) -> Cluster:
    """Hosts `gate`, `inner` (reached through `gate` alone) and `other`, one slot each."""
    gate, other = farm.start(2)
    inner = farm.behind(gate)
    laptop = Laptop(tmp_path, home=ssh_home.path)
    laptop.write(FILES)
    laptop.commit()
    ssh_home.trust(gate, inner, other)
    key = ssh_home.key.file
    entries = {"gate": entry(gate, key), "inner": entry(inner, key, jump="gate"), "other": entry(other, key)}
    write_inventory(laptop, entries)
    return Cluster(laptop=laptop, hosts={"gate": gate, "inner": inner, "other": other})


def test_a_pipeline_runs_on_several_hosts_and_is_reused_as_far_as_it_goes(cluster: Cluster, tmp_path: Path) -> None:
    """The whole path of a researcher: run with changes in the work tree, picture, reuse, a variable, a comment."""
    laptop = cluster.laptop
    laptop.write({"measured/first.csv": "1,2\n2,4\n3,6\n7,14\n", "measured/extra.csv": "30,60\n"})
    process = laptop.start("run", "evaluate")
    until("both middle jobs run", lambda: {"train", "baseline"} <= set(marks(cluster.all)), seconds=90)
    cluster.open_gates()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    for line in ("prepared 5 rows", "epoch 3/3: slope", "baseline is the mean", "picture "):
        assert line in out

    run = json.loads(laptop.dstack("ps", "-a", "--json").stdout)[0]
    assert run["status"] == "succeeded"
    places = {job["workflow"]: job["host"] for job in run["jobs"]}
    assert places["train"] != places["baseline"]
    for workflow, host in places.items():
        assert workflow in marks([cluster.hosts[host]])

    _check_artifacts(cluster, run["run"], places["evaluate"], tmp_path / "out", out)
    _check_reuse(cluster, run["run"])


def _check_artifacts(cluster: Cluster, run: str, host: str, folder: Path, log: str) -> None:
    cluster.laptop.dstack("artifacts", "pull", run, "-o", str(folder))
    picture = (folder / "evaluate/report/fit.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n")
    assert picture == cluster.hosts[host].run(["cat", KEPT])
    assert f"picture {hashlib.sha256(picture).hexdigest()}" in log
    rows = (folder / "prepare/data/rows.csv").read_text().split()
    assert rows == ["1,2", "2,4", "3,6", "30,60", "7,14"]


def _check_reuse(cluster: Cluster, first: str) -> None:
    laptop, everyone = cluster.laptop, cluster.all
    assert sorted(marks(everyone)) == ["baseline", "evaluate", "prepare", "train"]

    before, seen = marks(everyone), traffic(everyone)
    again = laptop.run_json("evaluate")
    assert {job["status"] for job in again["jobs"]} == {"reused"}
    assert {job["reused_from"] for job in again["jobs"]} == {first}
    assert marks(everyone) == before
    assert traffic(everyone) == seen

    other_rate = laptop.run_json("evaluate", "--lr", "0.01")
    assert _ran(other_rate) == {"train", "evaluate"}
    assert sorted(marks(everyone)) == sorted([*before, "train", "evaluate"])

    laptop.write({"prepare.py": "# only a comment\n" + PREPARE})
    commented = laptop.run_json("evaluate")
    assert _ran(commented) == {"prepare"}
    assert sorted(marks(everyone)) == sorted([*before, "train", "evaluate", "prepare"])


def _ran(run: dict[str, object]) -> set[str]:
    jobs = run["jobs"]
    assert isinstance(jobs, list)
    return {job["workflow"] for job in jobs if job["status"] == "succeeded"}
