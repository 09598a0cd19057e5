"""The embedded default: this machine as host, a folder as bucket; the same runner, without SSH."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.support.people.laptop import Laptop
from tests.support.waiting import until


def chain(marks: Path) -> dict[str, str]:
    return {
        ".dstack/workflows.yaml": f"""
workflows:
  - name: prepare
    depends-on: {{repo: {{include: [prepare.sh]}}}}
    commands:
      - echo "prepare $$" >> {marks}
      - sh prepare.sh > data.txt
      - echo prepared
    artifacts: [data.txt]
  - name: train
    depends-on: {{repo: {{include: []}}, workflows: [prepare]}}
    commands:
      - echo "train $$" >> {marks}
      - mkdir model; (cat data.txt; echo "lr=$lr") > model/weights
      - echo "trained with $lr"
    artifacts: [model]
""",
        ".dstack/variables.yaml": "variables:\n  train:\n    lr: 0.002\n",
        "prepare.sh": "echo 1 2 3\n",
    }


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    made = Laptop(tmp_path)
    made.write(chain(made.marks))
    made.commit()
    return made


def test_a_run_gives_logs_artifacts_and_a_record(laptop: Laptop, tmp_path: Path) -> None:
    done = laptop.dstack("run", "train")
    assert "train: waiting (waits for prepare)" in done.stdout
    assert "prepared" in done.stdout
    assert "trained with 0.002" in done.stdout
    runs = json.loads(laptop.dstack("ps", "-a", "--json").stdout)
    assert [run["status"] for run in runs] == ["succeeded"]
    name = runs[0]["run"]
    assert laptop.dstack("logs", name, "train").stdout == "trained with 0.002\n"
    laptop.dstack("artifacts", "pull", name, "train", "-o", str(tmp_path / "out"))
    assert (tmp_path / "out" / "model" / "weights").read_text() == "1 2 3\nlr=0.002\n"


def test_the_second_run_reuses_everything_and_starts_nothing(laptop: Laptop) -> None:
    first = laptop.run_json("train")
    marks = laptop.local_marks()
    assert len(marks) == 2
    second = laptop.run_json("train")
    assert [job["status"] for job in second["jobs"]] == ["reused", "reused"]
    assert {job["reused_from"] for job in second["jobs"]} == {first["run"]}
    assert laptop.local_marks() == marks


def test_only_what_a_variable_or_a_content_touches_runs_again(laptop: Laptop) -> None:
    laptop.run_json("train")
    changed = laptop.run_json("train", "--lr", "0.01")
    assert {job["workflow"]: job["status"] for job in changed["jobs"]} == {"prepare": "reused", "train": "succeeded"}
    laptop.write({"prepare.sh": "# the same output\necho 1 2 3\n"})
    cut_off = laptop.run_json("train")
    assert {job["workflow"]: job["status"] for job in cut_off["jobs"]} == {"prepare": "succeeded", "train": "reused"}


def test_rerun_opens_a_generation_for_the_named_workflow_only(laptop: Laptop) -> None:
    laptop.run_json("train")
    again = laptop.run_json("train", "--rerun")
    assert {job["workflow"]: job["status"] for job in again["jobs"]} == {"prepare": "reused", "train": "succeeded"}
    assert len(laptop.local_marks()) == 3
    assert {job["status"] for job in laptop.run_json("train")["jobs"]} == {"reused"}


def test_a_dry_run_touches_nothing(laptop: Laptop) -> None:
    done = laptop.dstack("run", "train", "--dry-run")
    assert "prepare" in done.stdout
    assert laptop.local_marks() == []
    assert json.loads(laptop.dstack("ps", "-a", "--json").stdout) == []


def test_a_failing_job_fails_the_run_and_keeps_its_log(laptop: Laptop) -> None:
    laptop.write({"prepare.sh": "echo before; exit 3\n"})
    failed = laptop.run_json("train", code=1)
    assert failed["status"] == "failed"
    jobs = {job["workflow"]: job for job in failed["jobs"]}
    assert jobs["prepare"]["status"] == "failed"
    assert "3" in jobs["prepare"]["reason"]
    assert jobs["train"]["status"] == "stopped"
    assert "prepare" in jobs["train"]["reason"]


def test_a_named_artifact_that_does_not_exist_fails_the_job_with_its_name(laptop: Laptop) -> None:
    laptop.write(
        {
            ".dstack/workflows.yaml": "workflows:\n  - name: train\n    commands: [echo done]\n"
            "    artifacts: [nowhere.txt]\n"
        }
    )
    failed = laptop.run_json("train", code=1)
    assert "nowhere.txt" in failed["jobs"][0]["reason"]
    assert "nowhere.txt" in laptop.dstack("logs", failed["run"]).stdout


def test_uncommitted_and_untracked_changes_travel(laptop: Laptop) -> None:
    laptop.write({"prepare.sh": "cat extra.txt\n", "extra.txt": "from an untracked file\n"})
    laptop.run_json("prepare")
    name = json.loads(laptop.dstack("ps", "-a", "--json").stdout)[0]["run"]
    laptop.dstack("artifacts", "pull", name, "-o", "out")
    assert (laptop.root / "out" / "data.txt").read_text() == "from an untracked file\n"
    diff = laptop.dstack("show", name, "--diff").stdout
    assert "+cat extra.txt\n" in diff
    assert "+from an untracked file\n" in diff


def test_a_detached_five_step_run_completes_without_its_terminal(laptop: Laptop) -> None:
    steps = ["workflows:"]
    for number in range(1, 6):
        before = f"[step-{number - 1}]" if number > 1 else "[]"
        steps += [
            f"  - name: step-{number}",
            f"    depends-on: {{repo: {{include: []}}, workflows: {before}}}",
            f"    commands: ['echo {number} >> {laptop.marks}', 'echo {number} > out-{number}']",
            f"    artifacts: [out-{number}]",
        ]
    laptop.write({".dstack/workflows.yaml": "\n".join(steps) + "\n", ".dstack/variables.yaml": "variables: {}\n"})
    said = laptop.dstack("run", "step-5", "-d")
    name = said.stdout.split()[0]
    until("the run ends", lambda: laptop.show(name)["status"] != "running", seconds=60)
    assert laptop.show(name)["status"] == "succeeded"
    assert laptop.local_marks() == ["1", "2", "3", "4", "5"]


SHAPES = {
    "plain": "sleep 600",
    "pipeline": "sleep 600 | cat",
    "setsid": "setsid sleep 600 & sleep 600",
    "double fork": "(setsid sh -c 'sleep 600 &' &) ; sleep 600",
    "ignores TERM": "trap '' TERM; while :; do sleep 1; done",
    "respawns": "while :; do sleep 600 & wait; done",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_stop_leaves_no_process(laptop: Laptop, shape: str) -> None:
    command = SHAPES[shape]
    laptop.write(
        {
            ".dstack/workflows.yaml": "workflows:\n  - name: long\n    commands:\n"
            f"      - echo $$ >> {laptop.marks}\n      - |\n        {command}\n"
        }
    )
    laptop.write({".dstack/variables.yaml": "variables: {}\n"})
    name = laptop.dstack("run", "long", "-d").stdout.split()[0]
    until("the job runs", laptop.local_marks)
    laptop.dstack("stop", name)
    until("the run ends", lambda: laptop.show(name)["status"] != "running", seconds=60)
    assert laptop.show(name)["status"] == "stopped"
    assert survivors(laptop) == []


def survivors(laptop: Laptop) -> list[str]:
    """Processes with the marker of an attempt that work below this laptop's home; read from /proc by the test."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            environment = (folder / "environ").read_bytes()
            work = str((folder / "cwd").readlink())
        except OSError:
            continue
        if b"DSTACK_ATTEMPT=" in environment and work.startswith(str(laptop.home)):
            found.append(folder.name)
    return found


def test_two_terminals_start_the_same_thing_once(laptop: Laptop) -> None:
    processes = [laptop.start("run", "train", "--json") for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    for process, (out, err) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, out + err
    assert len(laptop.local_marks()) == 2
    assert all(json.loads(out)["status"] == "succeeded" for out, _ in outputs)


def test_killing_the_command_line_loses_nothing(laptop: Laptop) -> None:
    laptop.write({"prepare.sh": "while [ ! -e %s ]; do sleep 0.05; done; echo 1\n" % (laptop.root.parent / "gate")})
    process = laptop.start("run", "train")
    until("the job runs", laptop.local_marks)
    process.kill()
    process.communicate()
    (laptop.root.parent / "gate").touch()
    name = json.loads(laptop.dstack("ps", "--json").stdout)[0]["run"]
    laptop.dstack("attach", name)
    assert laptop.statuses(name) == {"prepare": "succeeded", "train": "succeeded"}
    assert len(laptop.local_marks()) == 2


def test_two_workflows_that_are_the_same_job_run_once(laptop: Laptop) -> None:
    same = f"commands: ['echo once >> {laptop.marks}'], depends-on: {{repo: {{include: []}}}}"
    laptop.write(
        {
            ".dstack/workflows.yaml": f"workflows:\n  - {{name: left, {same}}}\n  - {{name: right, {same}}}\n"
            "  - {name: both, commands: ['true'], depends-on: [left, right]}\n",
            ".dstack/variables.yaml": "variables: {}\n",
        }
    )
    statuses = {job["workflow"]: job["status"] for job in laptop.run_json("both")["jobs"]}
    assert set(statuses.values()) <= {"succeeded", "reused"}
    assert laptop.local_marks() == ["once"]


def test_detaching_while_jobs_wait_for_a_slot_says_how_to_come_back_and_nothing_else(laptop: Laptop) -> None:
    gate = laptop.root.parent / "gate"
    jobs = "".join(
        f"  - name: job-{number}\n    commands: ['echo {number} >> {laptop.marks}; "
        f"while [ ! -e {gate} ]; do sleep 0.05; done']\n"
        for number in range(4)
    )
    last = "  - {name: all, commands: ['true'], depends-on: [job-0, job-1, job-2, job-3]}\n"
    laptop.write({".dstack/workflows.yaml": f"workflows:\n{jobs}{last}", ".dstack/variables.yaml": "variables: {}\n"})
    laptop.write({".dstack/hosts.yaml": "hosts:\n  here: {local: true, slots: 1}\n"})
    process = laptop.start("run", "all")
    until("a job runs", laptop.local_marks)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "goes on in the background" in err
    assert "Traceback" not in err
    assert "never retrieved" not in err
    gate.touch()
    name = json.loads(laptop.dstack("ps", "--json").stdout)[0]["run"]
    until("the run ends", lambda: laptop.show(name)["status"] == "succeeded", seconds=60)
    assert sorted(laptop.local_marks()) == ["0", "1", "2", "3"]


def test_what_was_pulled_into_the_project_is_no_code_of_it(laptop: Laptop) -> None:
    laptop.write({".dstack/variables.yaml": "variables: {}\n"})
    laptop.write(
        {".dstack/workflows.yaml": "workflows:\n  - name: one\n    commands: [echo x > o]\n    artifacts: [o]\n"}
    )
    run = laptop.run_json("one")
    laptop.dstack("artifacts", "pull", run["run"])
    assert (laptop.root / run["run"] / "o").read_text() == "x\n"
    assert laptop.run_json("one")["jobs"][0]["status"] == "reused"


def test_what_no_host_can_ever_run_is_refused_before_anything_is_recorded(laptop: Laptop) -> None:
    laptop.write({".dstack/variables.yaml": "variables: {}\n"})
    laptop.write(
        {".dstack/workflows.yaml": "workflows:\n  - {name: big, commands: [echo], resources: {cpu: 100000}}\n"}
    )
    for detach in ([], ["-d"]):
        done = laptop.dstack("run", "big", *detach, code=3)
        assert "no host can run big: local has" in done.stderr
    assert json.loads(laptop.dstack("ps", "-a", "--json").stdout) == []


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_run_whose_terminal_is_closed_goes_on_in_the_background(laptop: Laptop, number: signal.Signals) -> None:
    laptop.write(
        {
            ".dstack/variables.yaml": "variables: {}\n",
            ".dstack/workflows.yaml": f"workflows:\n  - name: first\n    commands: [echo first >> {laptop.marks}, "
            f"'while [ ! -e {laptop.marks}.go ]; do sleep 0.05; done']\n"
            f"  - name: second\n    depends-on: [first]\n    commands: [echo second >> {laptop.marks}]\n",
        }
    )
    process = laptop.start("run", "second")
    until("the first job runs", laptop.marks.exists)
    process.send_signal(number)
    process.communicate(timeout=30)
    Path(f"{laptop.marks}.go").touch()

    def status() -> bool:
        (run,) = json.loads(laptop.dstack("ps", "-a", "--json").stdout)
        return bool(run["status"] == "succeeded")

    until("the run ends in the background", status, seconds=60)
    assert laptop.marks.read_text() == "first\nsecond\n"


def test_an_option_of_ours_with_a_value_is_refused_and_runs_nothing(laptop: Laptop) -> None:
    done = laptop.dstack("run", "train", "--dry-run=4", code=2)
    assert "--dry-run takes no value" in done.stderr
    assert json.loads(laptop.dstack("ps", "-a", "--json").stdout) == []


def test_why_of_a_job_that_never_ran_names_what_failed(laptop: Laptop) -> None:
    laptop.write({"prepare.sh": "exit 3\n"})
    run = laptop.run_json("train", code=1)
    assert "train: did not run (stopped: prepare failed)" in laptop.dstack("why", run["run"], "train").stdout


def test_the_queue_shows_what_runs_and_what_waits_and_why(laptop: Laptop) -> None:
    jobs = "\n".join(
        f"  - {{name: {name}, commands: ['while [ ! -e {laptop.marks} ]; do sleep 0.05; done # {name}'], priority: 3}}"
        for name in ("one", "two")
    )
    laptop.write({".dstack/workflows.yaml": f"workflows:\n{jobs}\n", ".dstack/variables.yaml": "variables: {}\n"})
    laptop.write({".dstack/hosts.yaml": "hosts:\n  here: {local: true, slots: 1}\n"})
    names = [laptop.dstack("run", "one", "-d").stdout.split()[0]]
    until("the first runs", lambda: "running" in laptop.dstack("queue").stdout)
    names.append(laptop.dstack("run", "two", "-d").stdout.split()[0])
    told = until("both are there", lambda: found if (found := laptop.dstack("queue").stdout).count("\n") == 3 else "")
    assert any(f"{names[0]}/one" in line and "running" in line for line in told.splitlines())
    assert any(f"{names[1]}/two" in line and "no slot is free" in line for line in told.splitlines())
    assert told.count("priority 3") == 2
    laptop.marks.touch()
    for name in names:
        laptop.dstack("attach", name)
