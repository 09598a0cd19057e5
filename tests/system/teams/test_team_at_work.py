"""A team at work: many command lines, hosts with coordinators of their own, runs that are the same and that differ.

Judged by the jobs' own marks on the hosts, by /proc there, and by how each run must end.
"""

from __future__ import annotations

import json
import os
import statistics
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hosts.farm import Farm, TestHost
from tests.support.hosts.home import ClientKey
from tests.support.people.pipeline import GATE, coordinators
from tests.support.people.team import Mark, Person, Sample, person, read_marks, sample
from tests.support.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1500)]

PEOPLE = 5
ROUNDS = int(os.environ.get("DSTACK_ROUNDS", "3"))
TEAMS = [10] * ROUNDS if ROUNDS < 50 else [ROUNDS * 10]
"""The runs of each team, one after another: three teams with 10 runs in CI, one with 500 in a soak."""
SAMPLES = 12
"""So many samples tell whether a coordinator grows."""
GROWTH_FILES = 6
GROWTH_MEMORY = 1.15 if ROUNDS >= 50 else 1.5
"""A coordinator that lives for half a minute has hardly warmed up."""


class Watch(threading.Thread):
    """Samples the coordinators of the hosts for as long as `over` is not set."""

    def __init__(self, hosts: list[TestHost]) -> None:
        super().__init__(name="watch")
        self._hosts = hosts
        self.over = threading.Event()
        self.seen: list[list[Sample]] = [[] for _ in hosts]

    def run(self) -> None:
        while not self.over.wait(1.5):
            for host, seen in zip(self._hosts, self.seen, strict=True):
                seen.extend(sample(host))

    def lives(self) -> list[list[Sample]]:
        """The samples of each coordinator, in their order. A host that was slow to answer was not given every run."""
        pids = [(number, one.pid) for number, seen in enumerate(self.seen) for one in seen]
        return [[one for one in self.seen[number] if one.pid == pid] for number, pid in dict.fromkeys(pids)]

    def longest(self) -> list[Sample]:
        """The samples of the coordinator that has lived longest."""
        return max(self.lives(), key=len, default=[])


@pytest.fixture
def hosts(farm: Farm, tmp_path: Path) -> list[TestHost]:
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    return farm.start(3, shared=bucket)


@pytest.fixture
def people(team: int, hosts: list[TestHost], client_key: ClientKey, tmp_path: Path) -> list[Person]:
    return [person(tmp_path / f"person-{team}-{n}", tmp_path / "bucket", hosts, client_key) for n in range(PEOPLE)]


@pytest.fixture
def watch(hosts: list[TestHost]) -> Iterator[Watch]:
    made = Watch(hosts)
    yield made
    made.over.set()
    if made.is_alive():
        made.join()


@pytest.mark.parametrize(("team", "runs"), list(enumerate(TEAMS)))
def test_a_team_s_runs_all_end_as_they_must_and_no_job_is_started_twice(
    runs: int, hosts: list[TestHost], people: list[Person], watch: Watch
) -> None:
    anchor = people[0].laptop.dstack("run", "-d", "anchor").stdout.split()[0]
    watch.start()
    shares = [runs // PEOPLE + (number < runs % PEOPLE) for number in range(PEOPLE)]
    threads = [threading.Thread(target=one.work, args=(share,)) for one, share in zip(people, shares, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until("coordinators were sampled", lambda: len(watch.longest()) >= SAMPLES, seconds=60)
    watch.over.set()
    assert [problem for one in people for problem in one.problems] == []
    judge_runs(people, runs)
    judge_marks(read_marks(hosts))
    for host in hosts:
        host.run(["touch", GATE], user="alice")
    until("the anchor ends", lambda: people[0].laptop.show(anchor)["status"] == "succeeded", seconds=60)
    until("the coordinators have ended", lambda: not any(coordinators(host) for host in hosts), seconds=30)
    watch.join()
    judge_growth(watch.longest())


def judge_runs(people: list[Person], runs: int) -> None:
    """Each run is what it must be; those that were left to the hosts have a moment to get there."""
    asked = {run.name: run.right for one in people for run in one.asked}
    assert len(asked) == runs

    def ends() -> dict[str, str]:
        views = people[0].laptop.dstack("ps", "-a", "--json").stdout
        return {view["run"]: view["status"] for view in json.loads(views) if view["run"] in asked}

    until("every run ends", lambda: "running" not in ends().values(), seconds=90, told=lambda: str(ends()))
    wrong = {name: (status, asked[name]) for name, status in ends().items() if status != asked[name]}
    assert wrong == {}


def judge_marks(marks: list[Mark]) -> None:
    """No attempt began twice, no job ran beside itself, and what succeeded once never ran again."""
    begun = Counter(mark.attempt for mark in marks if mark.what == "begin")
    assert [attempt for attempt, count in begun.items() if count > 1] == []
    running: dict[tuple[str, str], str] = {}
    done: set[tuple[str, str]] = set()
    for mark in marks:
        job = (mark.workflow, mark.shard)
        if mark.what == "end":
            assert running.pop(job) == mark.attempt
            if mark.workflow != "bad":
                done.add(job)
            continue
        assert job not in done, f"{job} ran again as {mark.attempt}"
        if mark.workflow != "slow":  # that one is stopped, and says nothing at its end
            assert job not in running, f"{job} ran twice at the same time, as {running[job]} and {mark.attempt}"
        running[job] = mark.attempt
    assert {workflow for workflow, _ in done} == {"prepare", "train"}


def judge_growth(seen: list[Sample]) -> None:
    """The coordinator that lived longest has no more at the end than after it had warmed up."""
    assert len(seen) >= SAMPLES, seen
    third = len(seen) // 3
    first, last = seen[:third], seen[-third:]
    print(f"memory {memory(first)} -> {memory(last)} KiB, files {files(first)} -> {files(last)}, {len(seen)} samples")
    assert memory(last) <= memory(first) * GROWTH_MEMORY
    assert files(last) <= files(first) + GROWTH_FILES


def memory(seen: list[Sample]) -> float:
    return statistics.median(one.memory for one in seen)


def files(seen: list[Sample]) -> float:
    return statistics.median(one.files for one in seen)
