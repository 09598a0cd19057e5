"""Eight people with homes of their own, one project, and hosts that share a folder as its bucket."""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.hosts.farm import TestHost
from tests.support.hosts.home import ClientKey, Home
from tests.support.people.laptop import Laptop
from tests.support.people.pipeline import GATE, MARKS, entry, write_inventory


def mark(what: str) -> str:
    """The command that appends a line to the marks of its host."""
    return f"echo $(date +%s%N) {what} $job_id $shard >> {MARKS}"


WORKFLOWS = f"""
workflows:
  - name: anchor
    depends-on: {{variables: []}}
    commands: ['while [ ! -e {GATE} ]; do sleep 0.2; done']
  - name: prepare
    commands:
      - {mark("begin prepare")}
      - sleep 0.3
      - echo data of $shard > data.txt
      - {mark("end prepare")}
    artifacts: [data.txt]
  - name: train
    depends-on: [prepare]
    commands:
      - {mark("begin train")}
      - sleep 0.5
      - cat data.txt data.txt > model.txt
      - {mark("end train")}
    artifacts: [model.txt]
  - name: bad
    depends-on: [prepare]
    commands:
      - {mark("begin bad")}
      - sleep 0.2
      - {mark("end bad")}
      - exit 3
  - name: slow
    depends-on: [prepare]
    commands:
      - {mark("begin slow")}
      - sleep 90
"""
VARIABLES = "variables:\n  global:\n    shard: 0\n"
SAMPLE = """
for out in /proc/[0-9]*/fd/1; do
  case $(readlink $out) in */coordinators/*.log)
    process=${out%/fd/1}
    echo $(cat $process/stat | cut -d' ' -f1) $(ls $process/fd | wc -l) $(grep VmRSS $process/status | tr -dc 0-9)
  esac
done
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one detached coordinator had open and in memory (KiB)."""

    pid: int
    files: int
    memory: int


def sample(host: TestHost) -> list[Sample]:
    lines = [line.split() for line in host.exec(["sh", "-c", SAMPLE], user="alice").output.decode().splitlines()]
    return [Sample(pid=int(a), files=int(b), memory=int(c)) for a, b, c in (line for line in lines if len(line) == 3)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A line that a job appended on its host; `at` is in nanoseconds of the clock that all hosts share."""

    at: int
    what: str
    workflow: str
    attempt: str
    shard: str


def read_marks(hosts: list[TestHost]) -> list[Mark]:
    script = f"cat {MARKS} 2> /dev/null || true"
    lines = [line.split() for host in hosts for line in host.run(["sh", "-c", script]).decode().splitlines()]
    found = [
        Mark(at=int(at), what=what, workflow=job, attempt=nonce, shard=shard) for at, what, job, nonce, shard in lines
    ]
    return sorted(found, key=lambda mark: mark.at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One run that somebody started, and how it must end."""

    name: str
    workflow: str
    right: str


@dataclass(slots=True)
class Person:
    """Works through a number of runs, one after the other; the decisions follow from the seed."""

    laptop: Laptop
    seed: str
    asked: list[Asked] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def work(self, runs: int) -> None:
        chance = random.Random(self.seed)
        for _ in range(runs):
            workflow = chance.choices(("train", "bad", "slow"), weights=(7, 2, 2))[0]
            shard, away = chance.randrange(max(4, runs)), chance.random() < 0.5
            try:
                self._run(workflow, str(shard), chance.uniform(0, 1.5), away=away)
            except Exception as error:
                self.problems.append(f"{workflow} {shard} {away}: {type(error).__name__}: {error}")

    def _run(self, workflow: str, shard: str, pause: float, *, away: bool) -> None:
        if away or workflow == "slow":
            name = self.laptop.dstack("run", "-d", workflow, "--shard", shard).stdout.split()[0]
        else:
            code = 1 if workflow == "bad" else 0
            name = str(
                json.loads(self.laptop.dstack("run", workflow, "--shard", shard, "--json", code=code).stdout)["run"]
            )
        right = {"train": "succeeded", "bad": "failed", "slow": "stopped"}[workflow]
        self.asked.append(Asked(name=name, workflow=workflow, right=right))
        if workflow == "slow":
            time.sleep(pause)
            self.laptop.dstack("stop", name)


def person(folder: Path, bucket: Path, hosts: list[TestHost], key: ClientKey) -> Person:
    home = Home(folder / "home", key)
    home.trust(*hosts)
    laptop = Laptop(folder, home=home.path)
    fleet = {f"gpu-{number}": entry(host, key.file, slots=8) for number, host in enumerate(hosts, 1)}
    write_inventory(laptop, fleet)
    laptop.write(
        {
            ".dstack/workflows.yaml": WORKFLOWS,
            ".dstack/variables.yaml": VARIABLES,
            ".dstack/config.yaml": f"{{bucket: {bucket}, project: shared}}\n",
        }
    )
    laptop.commit()
    return Person(laptop=laptop, seed=folder.name)
