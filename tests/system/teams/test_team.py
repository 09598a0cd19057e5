"""Two people, each with a machine, a home and a project of their own, on one bucket: a folder, and an object store."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dstack.adapters.process_identity import user_name
from tests.support.buckets.object_stores import ministack
from tests.support.people.laptop import LIMIT, Laptop

WORKFLOWS = """
workflows:
  - name: prepare
    commands: [echo prepared, echo data > data.txt]
    artifacts: [data.txt]
  - name: train
    depends-on: [prepare]
    commands: [cat data.txt data.txt > model.txt, echo trained]
    artifacts: [model.txt]
  - name: slow
    commands: [echo begun, sleep 600]
"""
AS = """import socket, sys
name = sys.argv.pop(1)
socket.gethostname = lambda: name
from dstack.__main__ import main
main()
"""
"""`dstack` on a machine of that name: who somebody is are an account and a machine, and here is one of each."""


class Member(Laptop):
    """Somebody of the team, on the machine `machine`."""

    machine = "desk"

    def start(self, *arguments: str, environment: Mapping[str, str] | None = None, **options: Any) -> Any:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", AS, self.machine, *arguments],
            cwd=self.root,
            env={**self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def said(self, *arguments: str, code: int = 0) -> str:
        done = self.dstack(*arguments, code=code)
        return done.stdout if code == 0 else done.stderr


@pytest.fixture(params=["folder", "s3"])
def members(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Member, Member]:
    """alice on the machine laptop, bob on the machine desk."""
    if request.param == "folder":
        (tmp_path / "bucket").mkdir()
        found = {"DSTACK_BUCKET": str(tmp_path / "bucket")}
    else:
        store = ministack()
        name = f"team{abs(hash(tmp_path))}"
        found = {**store.environment, "DSTACK_BUCKET": store.make(name)}
    alice, bob = Member(tmp_path / "alice"), Member(tmp_path / "bob")
    alice.machine = "laptop"
    for member in (alice, bob):
        member.environment |= found
        member.write({".dstack/workflows.yaml": WORKFLOWS})
        member.commit()
    return alice, bob


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"not within {LIMIT} s: {what}"
        time.sleep(0.1)


def test_everybody_sees_and_reads_everybodys_runs(members: tuple[Member, Member], tmp_path: Path) -> None:
    alice, bob = members
    run = alice.run_json("train")["run"]
    beginning = run[: len(run) - 2]
    (listed,) = json.loads(bob.said("ps", "--json"))
    assert (listed["run"], listed["user"], listed["machine"]) == (run, user_name(), "laptop")
    assert f"{user_name()}@laptop" in bob.said("ps")
    assert json.loads(bob.said("ps", "--mine", "--json")) == []
    assert json.loads(bob.said("show", beginning, "--json")) == listed
    assert bob.said("logs", beginning) == "[prepare] prepared\n[train] trained\n"
    assert bob.said("logs", "-f", run, "train") == "trained\n"
    assert "no earlier job" in bob.said("why", beginning, "train")
    assert "model.txt" in bob.said("artifacts", "ls", beginning)
    bob.said("artifacts", "pull", beginning, "train", "-o", str(tmp_path / "out"))
    assert (tmp_path / "out/model.txt").read_text() == "data\ndata\n"
    assert "succeeded" in bob.said("attach", beginning)
    assert "succeeded" in bob.said("stop", beginning)


def test_the_shorthand_is_never_somebody_elses_run(members: tuple[Member, Member]) -> None:
    alice, bob = members
    run = alice.run_json("train")["run"]
    for words in (["show"], ["logs"], ["logs", "-"], ["attach"], ["why"], ["artifacts", "pull"], ["stop", "-"]):
        assert f"{user_name()}@desk has made no run here yet" in bob.said(*words, code=2), words
    assert "say which run to stop" in alice.said("stop", code=2)
    mine = bob.run_json("train")["run"]
    assert json.loads(bob.said("show", "-", "--json"))["run"] == mine
    assert json.loads(alice.said("show", "--json"))["run"] == run
    assert [each["run"] for each in json.loads(alice.said("ps", "--mine", "--json"))] == [run]
    assert [each["run"] for each in json.loads(bob.said("ps", "--json"))] == [mine, run]
    done = alice.dstack("logs", "-", "train")
    assert (done.stdout, done.stderr) == ("trained\n", f"your last run: {run} (train)\n")


def test_a_colleagues_run_is_followed_attached_to_and_stopped(members: tuple[Member, Member]) -> None:
    alice, bob = members
    alice.said("run", "-d", "slow")
    until(lambda: json.loads(bob.said("ps", "--json"))[0]["jobs"][0]["status"] == "running", "it runs")
    (run,) = json.loads(bob.said("ps", "--json"))
    job = run["jobs"][0]
    assert job["started"] is not None
    assert len(run["looked_after_by"]) == 1
    assert "nobody looks after" not in bob.said("ps")
    following, attached = bob.start("logs", "-f", run["run"]), bob.start("attach", run["run"])
    try:
        until(lambda: "begun" in alice.said("logs", run["run"]), "its log is there")
        refused = bob.said("stop", run["run"], code=2)
        assert f"{run['run']} is {user_name()}@laptop's run, and nobody is there to be asked" in refused
        assert json.loads(bob.said("show", run["run"], "--json"))["status"] == "running"
        stopped = bob.said("stop", run["run"], "--yes")
        assert f"slow: stopped on local (stopped by {user_name()})" in stopped
        out, _ = following.communicate(timeout=LIMIT)
        assert (following.returncode, out) == (0, "begun\n")
        shown, _ = attached.communicate(timeout=LIMIT)
        assert attached.returncode == 1
        assert "begun" in shown
    finally:
        for process in (following, attached):
            if process.poll() is None:
                process.kill()
                process.wait()
