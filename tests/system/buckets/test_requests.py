"""How many requests each command makes, counted by the object store itself, against the table in docs/format.md."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from dstack.adapters.bucket.opener import open_bucket
from tests.support.buckets.object_stores import ministack
from tests.support.buckets.request_log import OPEN, SECOND, STANDBY, RequestLog, Requests, documented
from tests.support.people.laptop import Laptop
from tests.support.records.old_runs import old_run

OTHERS = 10_000
"""Final runs of other people in the bucket."""
WORKFLOWS = """
workflows:
  - {name: prepare, artifacts: [data], commands: [echo 1 > data, echo prepared]}
  - {name: train, depends-on: [prepare], artifacts: [model], commands: [cat data data > model, echo trained]}
  - {name: one, reuse: false, commands: [echo one]}
  - {name: slow, reuse: false, commands: [echo begun, sleep 4]}
"""


@dataclass
class Team:
    """A laptop on a bucket with `OTHERS` runs of others and two of its own: `run`, and one in which all was reused."""

    laptop: Laptop
    log: RequestLog
    run: str
    folder: Path

    def asked(self, *words: str) -> Requests:
        self.log.since()
        self.laptop.dstack(*words, code=None)
        return self.log.since()


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Team:
    store, folder = ministack(), tmp_path_factory.mktemp("requests")
    url = store.make("counted")
    laptop = Laptop(folder / "alice")
    laptop.environment |= {**store.environment, "DSTACK_BUCKET": url}
    laptop.write({".dstack/workflows.yaml": WORKFLOWS})
    laptop.commit()
    bucket = open_bucket(url, store.options, folder)
    with ThreadPoolExecutor(8) as pool:
        for each in range(OTHERS):
            for key, body in old_run(each).items():
                pool.submit(bucket.put, key, body)
    assert len(bucket.children("projects/project/runs/")) == OTHERS
    run = laptop.run_json("train")["run"]
    laptop.run_json("train")
    (folder / "hosts.yaml").write_text("hosts: {gpu-1: {address: 10.0.0.5}}\n")
    laptop.dstack("hosts", "push", "--hosts", str(folder / "hosts.yaml"))
    return Team(laptop=laptop, log=RequestLog(store, "counted"), run=run, folder=folder)


COMMANDS = {
    "ps": "ps",
    "ps --mine -n 2": "ps --mine -n 2",
    "ps -n 45": "ps -n 45",
    "show RUN": "show {run}",
    "show, of one's own last run": "show",
    "show, of the beginning of a name": "show {beginning}",
    "show, of a name that is none": "show {run}x",
    "logs RUN": "logs {run}",
    "logs -f RUN": "logs -f {run}",
    "why RUN": "why {run}",
    "artifacts ls RUN": "artifacts ls {run}",
    "artifacts pull RUN": "artifacts pull {run} -o {folder}/out",
    "stop RUN": "stop {run}",
    "attach RUN": "attach {run}",
    "run --dry-run": "run train --dry-run",
    "run, everything reused": "run train",
    "hosts pull": "hosts pull",
    "hosts push, nothing new": "hosts push --hosts {folder}/hosts.yaml",
    "hosts ls": "hosts ls",
    "hosts check": "hosts check",
    "init": "init",
    "queue": "queue",
    "check": "check",
    "version": "version",
}
"""Row of the table -> command, on runs of two jobs that are final."""
TIMED = {"run, one job": "run one", "run, one job of four seconds": "run slow"}


def test_the_table_has_a_row_for_each_command_that_is_counted() -> None:
    assert set(documented()) == {*COMMANDS, OPEN, "run, one job", SECOND, STANDBY}


@pytest.mark.parametrize("row", COMMANDS)
def test_a_command_makes_as_many_requests_as_the_table_says(team: Team, row: str) -> None:
    words = COMMANDS[row].format(run=team.run, beginning=team.run[:-1], folder=team.folder).split()
    assert team.asked(*words) == documented()[row]


@pytest.mark.parametrize("row", TIMED)
def test_a_job_makes_no_more_requests_than_the_table_says(team: Team, row: str) -> None:
    began = time.monotonic()
    asked = team.asked(*TIMED[row].split())
    seconds = math.ceil(time.monotonic() - began)
    once, each = documented()["run, one job"], documented()[SECOND]
    assert asked.lists <= once.lists + seconds * each.lists
    assert asked.reads <= once.reads + seconds * each.reads
    assert asked.writes <= once.writes + seconds * each.writes
    assert asked.writes >= once.writes


def test_ps_is_one_list_and_at_most_fifty_reads_however_many_runs_there_are(team: Team) -> None:
    for words in (("ps",), ("ps", "--mine"), ("ps", "-n", "49")):
        asked = team.asked(*words)
        assert (asked.lists, asked.writes) == (1, 0)
        assert asked.reads <= 50


def test_an_idle_fleet_asks_nothing(team: Team) -> None:
    team.asked("ps")
    time.sleep(3)
    assert team.log.since() == Requests(0, 0, 0)
