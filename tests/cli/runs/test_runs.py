"""A run on this machine, and everything that people can ask about it afterwards; whole outputs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dstack.app.queries.run_views import JobView
from dstack.cli.main import execute
from dstack.cli.runs import stop
from dstack.model import JobStatus, WorkflowName
from dstack.ui.times import clock_text
from tests.support.people.laptop import Laptop, names

FILES = {
    ".dstack/workflows.yaml": """\
workflows:
  - name: prepare
    depends-on: {repo: {include: [prepare.sh]}}
    commands: [sh prepare.sh]
    artifacts: [data]
  - name: train
    help: Train it
    depends-on: {repo: {include: []}, workflows: [prepare]}
    commands:
      - mkdir -p model
      - 'printf "lr=%s\\n" "$lr" | tee model/weights'
    artifacts: [model]
  - name: noisy
    depends-on: {repo: {include: []}}
    commands:
      - 'printf "one\\033]0;title\\007\\033[2Jtwo\\r\\n\\033[31mred\\033[0m no end"'
  - name: fails
    depends-on: {repo: {include: []}}
    commands: [echo before, exit 3]
  - name: slow
    depends-on: {repo: {include: []}}
    commands: [echo begun, sleep 600]
  - name: deaf
    depends-on: {repo: {include: []}}
    commands: ["trap '' TERM; echo begun; while :; do sleep 0.2; done"]
""",
    ".dstack/variables.yaml": "variables:\n  train:\n    lr: 0.1\n",
    "prepare.sh": "mkdir -p data\nprintf 12345 > data/numbers\necho prepared\n",
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    """A project in which two runs of train were made."""
    made = Laptop(tmp_path_factory.mktemp("told"), user="alice", columns=80)
    made.write(FILES)
    made.git()
    assert made.run("run", "train").code == 0
    assert made.run("run", "train", "--lr", "0.5").code == 0
    return made


@pytest.fixture
def fresh(project: Callable[..., Laptop]) -> Laptop:
    """The same project before any run: for tests that make runs."""
    made = project(FILES)
    made.git()
    return made


def runs(project: Laptop) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(project.run("ps", "-a", "--json").out)
    return found


def test_ps(told: Laptop) -> None:
    done = told.run("ps")
    newest, oldest = names(done.out)[:2]
    rows = [re.split(r"  +", re.sub(r"\d+:\d\d", "TIME", line)) for line in done.out.splitlines()]
    assert rows[0] == ["RUN", "WORKFLOW", "STATUS", "JOBS", "WHO", "WHERE", "TIME", "AGE"]
    assert [row[:-1] for row in rows[1:]] == [
        [name, "train", "succeeded", "2/2", who(told), "local", "TIME"] for name in (newest, oldest)
    ]
    assert all(re.fullmatch(r"\d+m", row[-1]) for row in rows[1:])
    assert max(len(line) for line in done.out.splitlines()) <= 80
    assert done.err == ""


def who(project: Laptop) -> str:
    return f"{runs(project)[0]['user']}@{runs(project)[0]['machine']}"


def test_ps_json_has_the_promised_fields(told: Laptop) -> None:
    newest = runs(told)[0]
    assert list(newest) == [
        *("run", "workflow", "status", "user", "submitted", "jobs"),
        *("machine", "ended", "looked_after_by", "stage"),
    ]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", newest["submitted"])
    prepare, train = newest["jobs"]
    assert list(train) == [
        *("workflow", "status", "host", "attempt", "fingerprint", "reused_from", "reason"),
        *("started", "ended", "unreachable_since", "sighting"),
    ]
    assert train["started"] < train["ended"] == newest["ended"]
    assert (prepare["status"], prepare["reused_from"]) == ("reused", runs(told)[1]["run"])
    assert (train["status"], train["host"], train["attempt"], train["reused_from"]) == ("succeeded", "local", 1, None)
    assert re.fullmatch("[0-9a-f]{64}", train["fingerprint"])


def test_ps_of_one_and_of_all(told: Laptop) -> None:
    assert len(json.loads(told.run("ps", "-n", "1", "--json").out)) == 1
    assert len(json.loads(told.run("ps", "-a", "--json").out)) >= 2


def test_show_json_is_the_same_object(told: Laptop) -> None:
    newest = runs(told)[0]
    assert json.loads(told.run("show", newest["run"], "--json").out) == newest


def test_show(told: Laptop) -> None:
    newest, oldest = (run["run"] for run in runs(told))
    done = told.run("show", newest)
    text = re.sub(r"submitted  .*", "submitted  WHEN", done.out)
    text = re.sub(r"user       .*", "user       WHO", text)
    text = re.sub(r"code       [0-9a-f]{12} ", "code       COMMIT ", text)
    text = re.sub(r"  \d+:\d\d$", "  TIME", text, flags=re.MULTILINE)
    assert text.splitlines() == [
        f"run        {newest}",
        "workflow   train",
        "status     succeeded",
        "user       WHO",
        "submitted  WHEN",
        "code       COMMIT no commit yet (main), uncommitted changes",
        "variables  --lr 0.5",
        "",
        "WORKFLOW  STATUS     HOST   ATTEMPT  TIME  NOTE",
        f"prepare   reused     local        1     -  from {oldest}",
        "train     succeeded  local        1  TIME",
    ]


def test_logs_of_one_workflow_are_its_bytes(told: Laptop) -> None:
    newest = runs(told)[0]["run"]
    assert told.run("logs", newest, "train").out == "lr=0.5\n"
    assert told.run("logs", newest, "train", "-f").out == "lr=0.5\n"


def test_logs_of_a_run_are_told_apart(told: Laptop) -> None:
    newest = runs(told)[0]["run"]
    assert told.run("logs", newest).out == "[prepare] prepared\n[train] lr=0.5\n"


def test_logs_steer_no_terminal_and_lose_no_byte_when_raw(fresh: Laptop) -> None:
    assert fresh.run("run", "noisy").code == 0
    name = runs(fresh)[0]["run"]
    assert fresh.run("logs", name).out == "onetwo\n\x1b[31mred\x1b[0m no end"
    assert fresh.run("logs", name, "--raw").out == "one\x1b]0;title\x07\x1b[2Jtwo\r\n\x1b[31mred\x1b[0m no end"
    refused = fresh.terminal("logs", name, "--raw")
    assert (refused.code, "\x1b]0" in refused.out) == (2, False)


def test_artifacts_ls(told: Laptop) -> None:
    done = told.run("artifacts", "ls", runs(told)[0]["run"])
    assert done.out == ("WORKFLOW  PATH           SIZE\nprepare   data/numbers    5 B\ntrain     model/weights   7 B\n")


def test_artifacts_pull(told: Laptop, tmp_path: Path) -> None:
    name = runs(told)[0]["run"]
    done = told.run("artifacts", "pull", name, "-o", str(tmp_path / "out"))
    assert done.out == (f"prepare: 1 file, 5 B in {tmp_path}/out/prepare\ntrain: 1 file, 7 B in {tmp_path}/out/train\n")
    assert (tmp_path / "out/prepare/data/numbers").read_text() == "12345"
    told.run("artifacts", "pull", name, "train", "-o", str(tmp_path / "one"))
    assert (tmp_path / "one/model/weights").read_text() == "lr=0.5\n"


def test_a_pull_into_the_project_says_that_it_becomes_code_unless_git_ignores_it(told: Laptop) -> None:
    name = runs(told)[0]["run"]
    says = "{} lies in the project: the next run takes it for code; add it to .gitignore\n"
    try:
        assert told.run("artifacts", "pull", name, "-o", "out").err == says.format("out")
        assert told.run("artifacts", "pull", name, "-o", "./out/again").err == says.format("out/again")
        (told.root / "out/.gitignore").write_text("*\n")
        assert told.run("artifacts", "pull", name, "-o", "out").err == ""
        (told.root / ".gitignore").write_text("kept/\n")
        assert told.run("artifacts", "pull", name, "-o", "kept").err == ""
        assert told.run("artifacts", "pull", name, "-o", ".dstack/pulled").err == ""
        assert told.run("artifacts", "pull", name, "-o", "../outside").err == ""
        assert told.run("artifacts", "pull", name).err == ""
    finally:
        (told.root / ".gitignore").unlink(missing_ok=True)
        for folder in ("out", "kept", ".dstack/pulled", name):
            shutil.rmtree(told.root / folder, ignore_errors=True)


def test_why(told: Laptop) -> None:
    newest, oldest = (run["run"] for run in runs(told))
    assert told.run("why", newest).out == (
        f"prepare: reused from {oldest}, because nothing differs\n"
        f"train: ran, because this differs from {oldest}:\n"
        "  variable lr: 0.1 → 0.5\n"
    )
    assert told.run("why", oldest, "train").out == "train: ran, because there is no earlier job of this workflow\n"


def test_a_dry_run_prints_the_plan_and_leaves_no_trace(told: Laptop) -> None:
    before = runs(told)
    oldest = before[-1]["run"]
    done = told.run("run", "train", "--dry-run", env={"COLUMNS": "200"})
    why = f"same code, variables and inputs as in {oldest}"
    assert done.out == (
        "WORKFLOW  PLAN    HOST   WHY\n"
        f"prepare   reused  local  {why}\n"
        f"train     reused  local  {why}\n"
        "\n2 jobs, all reused; nothing was run or recorded\n"
    )
    assert runs(told) == before


def test_a_dry_run_ends_as_the_run_would_where_no_host_can_run_it(fresh: Laptop) -> None:
    """`--offline` asks no host, and so cannot know."""
    big = "  - name: big\n    depends-on: [prepare]\n    resources: {gpu: 64}\n    commands: [echo big]\n"
    fresh.write({".dstack/workflows.yaml": FILES[".dstack/workflows.yaml"] + big})
    wide = {"COLUMNS": "200"}
    planned, run = fresh.run("run", "big", "--dry-run", env=wide), fresh.run("run", "big", env=wide)
    assert (planned.code, planned.err) == (run.code, run.err) == (3, planned.err)
    assert planned.err.startswith("error: no host can run big: ")
    rows = [line.split() for line in planned.out.splitlines()[1:3]]
    assert [row[0] for row in rows] == ["prepare", "big"]
    assert (rows[0][1:3], rows[1][1:3]) == (["will", "run"], ["no", "host"])
    offline = fresh.run("run", "big", "--dry-run", "--offline", env=wide)
    assert (offline.code, offline.err) == (0, "")
    assert [line.split()[1] for line in offline.out.splitlines()[1:3]] == ["will", "waits"]
    assert runs(fresh) == []
    fresh.write({"hosts.yaml": "hosts:\n  gpu: {address: 127.0.0.1, port: 1, user: nobody}\n"})
    away = ("--hosts", "hosts.yaml")
    planned, run = fresh.run("run", "train", "--dry-run", *away), fresh.run("run", "train", *away)
    assert (planned.code, planned.err) == (run.code, run.err) == (3, planned.err)
    assert "no host" in planned.out
    assert fresh.run("run", "train", "--dry-run", "--offline", *away).code == 0
    refused = fresh.run("run", "train", "--offline")
    assert (refused.code, refused.err.splitlines()[0]) == (
        2,
        "error: --offline goes with --dry-run: a run needs its hosts",
    )


def test_the_output_of_a_run_in_a_pipe(fresh: Laptop) -> None:
    done = fresh.run("run", "fails")
    name = names(done.out)[0]
    lines = done.out.splitlines()
    assert done.code == 1
    assert lines[0] == name
    assert lines.index("fails: running on local") < lines.index("before")
    assert lines[-1] == f"{name}: 1 failed"
    assert re.match(r"fails: failed on local \(.*3.*\)", lines[-2])
    assert "\x1b" not in done.out


def test_a_run_as_json_is_one_object_alone(fresh: Laptop) -> None:
    assert fresh.run("run", "train").code == 0
    done = fresh.run("run", "train", "--json")
    assert json.loads(done.out)["status"] == "succeeded"
    assert [job["status"] for job in json.loads(done.out)["jobs"]] == ["reused", "reused"]


def test_a_run_in_a_terminal_ends_with_its_table(fresh: Laptop) -> None:
    done = fresh.terminal("run", "train")
    assert done.code == 0
    assert "\x1b[?25l" in done.out
    assert done.out.rstrip().endswith("\x1b[?25h")
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", done.out.rsplit("\x1b[J", 1)[1])
    rows = [line.split() for line in last.splitlines() if line.strip()]
    assert ["train", "succeeded", "local"] in [row[:3] for row in rows]
    assert "lr=0.1" in done.out
    assert max(len(line) for line in last.splitlines()) < 80


@contextmanager
def attached(made: Laptop, workflow: str) -> Iterator[Laptop]:
    """The project with a run of `workflow` that has begun, attached in a process that ends with the block."""
    with (made.home / "attached").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "dstack", "run", workflow],
            cwd=made.root,
            env=made.environment,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 60
        while b"begun" not in (made.home / "attached").read_bytes():
            assert time.monotonic() < deadline, (made.home / "attached").read_text()
            time.sleep(0.05)
        yield made
    finally:
        if process.poll() is None:
            made.run("stop", names(made.run("ps").out)[0])
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)


@pytest.fixture
def slow(fresh: Laptop) -> Iterator[Laptop]:
    with attached(fresh, "slow") as made:
        yield made


@pytest.fixture
def deaf(fresh: Laptop) -> Iterator[Laptop]:
    """A run whose job does not end for TERM."""
    with attached(fresh, "deaf") as made:
        yield made


def test_what_a_stop_leaves_is_one_line_with_what_to_do() -> None:
    def job(name: str, status: JobStatus, **changes: Any) -> JobView:
        return JobView(workflow=WorkflowName(name), status=status, **changes)

    ended = job("prepare", JobStatus.STOPPED, host="gpu-2")
    away = job("train", JobStatus.STOPPING, host="gpu-1", unreachable=1e9)
    told = stop.goes_on("calm-otter-7", [ended, away, *(job(f"w{n}", JobStatus.QUEUED) for n in range(9))])
    assert told == (
        f"calm-otter-7 has not ended: train on gpu-1 (stopping, unreachable since {clock_text('%H:%M', 1e9)}), "
        "w0 (queued), w1 (queued) and 7 more; the request stands, `dstack show calm-otter-7` says when it has; "
        "if gpu-1 will not be back: dstack lost calm-otter-7"
    )


def test_a_stop_that_is_left_says_what_goes_on_and_does_not_end_with_0(deaf: Laptop) -> None:
    name = runs(deaf)[0]["run"]
    done = deaf.terminal("stop", name, interrupt_at="waiting for local", env={"COLUMNS": "300"})
    assert done.code == 130, done.out
    assert f"{name} has not ended: deaf on local (stopping); the request stands, `dstack show {name}` says" in done.out


def test_a_stop_whose_patience_ends_first_says_what_goes_on_and_does_not_end_with_0(
    deaf: Laptop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stop, "STOP_WAIT_S", 0.5)
    monkeypatch.chdir(deaf.root)
    for key, value in deaf.environment.items():
        monkeypatch.setenv(key, value)
    name = runs(deaf)[0]["run"]
    assert execute(["stop", name]) == 1
    out, err = capfd.readouterr()
    assert out == f"deaf: stopping on local (stopped by {runs(deaf)[0]['user']})\n"
    assert f"{name} has not ended: deaf on local (stopping); the request stands, `dstack show {name}` says" in err


def test_a_running_job_is_shown_and_stopped(slow: Laptop) -> None:
    deadline = time.monotonic() + 60
    while runs(slow)[0]["jobs"][0]["status"] != "running":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    name = runs(slow)[0]["run"]
    assert runs(slow)[0]["status"] == "running"
    done = slow.run("stop", name)
    assert done.code == 0
    assert done.out == f"slow: stopped on local (stopped by {runs(slow)[0]['user']})\n"
    assert slow.run("logs", name).out == "begun\n"
    again = slow.run("stop", name)
    assert (again.code, again.out) == (0, done.out)


def test_ps_without_runs_says_where_it_looked_and_where_those_are_from_before_a_remote(
    project: Callable[..., Laptop],
) -> None:
    made = project({".dstack/workflows.yaml": "workflows:\n  - {name: w, commands: [echo]}\n"})
    made.git()
    bucket = made.home / ".dstack/bucket"
    none = "no runs yet of {} in " + f"{bucket}; `dstack run` lists the workflows\n"
    assert made.run("ps").err == none.format("project")
    assert made.run("ps", "--mine").err == f"no runs of yours yet of project in {bucket}\n"
    subprocess.run(["git", "remote", "add", "origin", "git@example.org:lab/nlp.git"], cwd=made.root, check=True)
    assert made.run("ps").err == none.format("lab.nlp")
    subprocess.run(["git", "remote", "remove", "origin"], cwd=made.root, check=True)
    assert made.run("run", "w").code == 0
    subprocess.run(["git", "remote", "add", "origin", "git@example.org:lab/nlp.git"], cwd=made.root, check=True)
    assert made.run("ps").err == (
        none.format("lab.nlp") + "runs of project are there: `project: project` in .dstack/config.yaml shows them\n"
    )
    made.write({".dstack/config.yaml": "project: project\n"})
    assert len(made.run("ps").out.splitlines()) == 2


def test_somebody_elses_run_is_stopped_only_after_a_question(slow: Laptop) -> None:
    """Another machine has the same bucket and another name; the run goes on until somebody says yes there."""
    (run,) = runs(slow)
    site = slow.root.parent / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import socket\nsocket.gethostname = lambda: 'desk'\n")
    name, owner = run["run"], f"{run['user']}@{run['machine']}"
    bob = {"PYTHONPATH": os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")]))}
    told = f"{name} is {owner}'s run"
    refused = slow.run("stop", name, env=bob)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == f"error: {told}, and nobody is there to be asked\n  --yes stops it without a question\n"
    declined = slow.terminal("stop", name, env=bob, answer="n\n", answer_at="stop it?")
    assert (declined.code, f"{told}; stop it? [y/N]" in declined.out) == (2, True), declined.out
    assert runs(slow)[0]["status"] == "running"
    agreed = slow.terminal("stop", name, env=bob, answer="y\n", answer_at="stop it?")
    assert agreed.code == 0
    assert f"slow: stopped on local (stopped by {run['user']})" in agreed.out
    # Of a run that has ended nothing is asked.
    assert slow.run("stop", name, env=bob).code == 0
