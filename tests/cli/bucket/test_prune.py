"""`dstack prune`, `du` and `fsck` on a folder bucket, whole commands; wrong input included."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.people.laptop import Laptop, names

FILES = {
    ".dstack/workflows.yaml": """\
workflows:
  - name: prepare
    depends-on: {repo: {include: []}}
    commands: [mkdir data, head -c 100000 /dev/zero > data/x, echo prepared]
    artifacts: [data]
  - name: train
    depends-on: {repo: {include: []}, workflows: [prepare]}
    commands: ["cat data/x > model; echo $lr >> model", echo trained]
    artifacts: [model]
  - name: fails
    depends-on: {repo: {include: []}}
    commands: [echo oh, exit 3]
  - name: slow
    depends-on: {repo: {include: []}, workflows: [prepare]}
    commands: [echo begun, sleep 600]
""",
    ".dstack/variables.yaml": "variables:\n  train:\n    lr: 0.1\n",
}


@pytest.fixture
def made(project: Callable[..., Laptop]) -> Laptop:
    """A project in which train ran twice, with different variables, and another workflow failed."""
    it = project(FILES)
    it.git()
    assert it.run("run", "train").code == 0
    assert it.run("run", "train", "--lr", "0.5").code == 0
    assert it.run("run", "fails").code == 1
    return it


def objects(project: Laptop) -> dict[str, bytes]:
    """Everything in the bucket, read by the test itself."""
    bucket = project.home / ".dstack/bucket"
    found = (path for path in bucket.rglob("*") if path.is_file() and ".tmp" not in path.parts)
    return {path.relative_to(bucket).as_posix(): path.read_bytes() for path in found}


def age(project: Laptop, days: float) -> None:
    then = time.time() - days * 86400
    for path in (project.home / ".dstack/bucket").rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def normal(text: str) -> list[str]:
    text = re.sub(r"\d{4}-\d\d-\d\d|just now|\d+ min ago", "WHEN", text)
    text = re.sub(r"\b[a-z]+-[a-z]+-[0-9]{1,2}\b", "NAME", text)
    text = re.sub(r"\d+(\.\d+)? k?B\b", "SIZE", text)
    return [re.sub(r" +", " ", line).strip() for line in text.splitlines()]


def test_a_dry_run_says_what_would_go_and_removes_nothing(made: Laptop) -> None:
    age(made, 40)
    before = objects(made)
    done = made.run("prune", "--older-than", "30d")
    assert done.code == 0
    title, *rows = normal(done.out)
    assert title == "WHAT WORKFLOW RUN LAST USED SIZE WHY"
    # All are of the same age here.
    assert sorted(rows[:7]) == [
        "logs fails NAME WHEN SIZE too old",
        "result prepare NAME WHEN SIZE too old",
        "result train NAME WHEN SIZE too old",
        "result train NAME WHEN SIZE too old",
        "run fails NAME WHEN SIZE too old",
        "run train NAME WHEN SIZE too old",
        "run train NAME WHEN SIZE too old",
    ]
    total = len(before) - 1  # the format record
    assert rows[7:] == [
        "",
        f"3 results, 1 job without a result, the records of 3 runs, 2 lists of code: SIZE in {total} objects",
        "nothing was removed: this is what --yes removes",
    ]
    assert objects(made) == before


def test_yes_removes_it_and_a_run_makes_it_again(made: Laptop) -> None:
    age(made, 40)
    done = made.run("prune", "--older-than", "30d", "--yes")
    assert done.code == 0, done.err
    left = objects(made)
    assert {key.rpartition("/")[2] for key in left} == {"dstack.json", "tomb"}
    assert made.run("ps").out == ""
    assert made.run("fsck", "--deep").out == "nothing is wrong\n"
    again = made.run("run", "train", "--json")
    assert [job["status"] for job in json.loads(again.out)["jobs"]] == ["succeeded", "succeeded"]
    why = made.run("why", json.loads(again.out)["run"], "train").out
    assert "its result was pruned" in why
    third = json.loads(made.run("run", "train", "--json").out)
    assert [job["status"] for job in third["jobs"]] == ["reused", "reused"]


def test_what_a_run_uses_stays_and_the_run_ends_well(made: Laptop) -> None:
    name = made.run("run", "slow", "-d").out.split()[0]
    deadline = time.monotonic() + 60
    while "begun" not in made.run("logs", name, "slow").out:
        assert time.monotonic() < deadline
    done = made.run("prune", "--older-than", "0s", "--yes")
    assert done.code == 0, done.err
    assert "2 jobs of runs that have not ended stay" in done.out
    packs = [key for key in objects(made) if "/data/" in key]
    assert len(packs) == 1  # of prepare, which slow takes
    made.run("stop", name)
    shown = json.loads(made.run("show", name, "--json").out)
    assert shown["jobs"][0]["status"] == "reused"


def test_the_newest_stay_and_the_oldest_go(made: Laptop) -> None:
    runs = [run["run"] for run in json.loads(made.run("ps", "-a", "--json").out) if run["workflow"] == "train"]
    done = made.run("prune", "--keep", "1", "--yes")
    assert names(done.out) == [runs[1]]
    assert made.run("artifacts", "ls", runs[0], "train").out.count("model") == 1
    gone = made.run("artifacts", "ls", runs[1], "train")
    assert "its artifacts were pruned" in gone.err
    assert made.run("artifacts", "pull", runs[1], "train").code == 2
    assert made.run("fsck").code == 0


def test_the_size_is_brought_down(made: Laptop) -> None:
    made.run("prune", "--max-size", "250kB", "--yes")
    assert sum(len(body) for body in objects(made).values()) <= 250_000
    assert made.run("prune", "--max-size", "250kB").out == "nothing to remove\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--older-than", "soon"), "'soon' is no age"),
        (("--older-than", "-3d"), "is no age"),
        (("--max-size", "big"), "'big' is no size"),
        (("--keep", "-1"), "-1"),
        (("--keep", "many"), "many"),
        (("all",), "all"),
    ],
)
def test_wrong_options_change_nothing(made: Laptop, arguments: tuple[str, ...], said: str) -> None:
    before = objects(made)
    done = made.run("prune", "--yes", *arguments)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err
    assert objects(made) == before


def test_tags_that_this_version_does_not_know_stop_it(made: Laptop) -> None:
    project = next((made.home / ".dstack/bucket/projects").iterdir())
    (project / "tags/best").mkdir(parents=True)
    (project / "tags/best/1").write_text("{}")
    done = made.run("prune", "--keep", "0", "--yes")
    assert done.code == 6
    assert "tags" in done.err


def test_without_an_option_only_leftovers_go(made: Laptop) -> None:
    done = made.run("prune", "--yes")
    assert done.out.splitlines() == [
        "nothing to remove",
        "say what may go: --older-than 30d, --keep 3, --max-size 50GB, --untagged",
    ]


def test_du(made: Laptop) -> None:
    done = made.run("du")
    lines = done.out.splitlines()
    assert lines[0].split() == ["WHAT", "SIZE", "OBJECTS"]
    assert [line.split()[0] for line in lines[1:6]] == ["artifacts", "records", "code", "logs", "all"]
    assert [line.split()[0] for line in lines[8:11]] == ["train", "prepare", "fails"]
    assert normal(lines[-1]) == ["`dstack prune` with --older-than, --keep or --max-size can free up to SIZE"]
    free = lines[-1].rpartition("to ")[2]
    assert f": {free} in " in made.run("prune", "--max-size", "0").out
    told = json.loads(made.run("du", "--json").out)
    seen = {key: body for key, body in objects(made).items() if key.startswith("projects/")}
    assert (told["bytes"], told["objects"]) == (sum(map(len, seen.values())), len(seen))
    assert [each["results"] for each in told["workflows"]] == [2, 1, 0]
    packs = sum(len(body) for key, body in seen.items() if "/data/" in key or key.endswith("/manifest"))
    assert sum(each["artifacts"] for each in told["workflows"]) == packs
    assert (told["used"], told["unknown"]) == (0, 0)


def test_where_nothing_is_left_to_free_du_names_no_options(made: Laptop) -> None:
    pruned = made.run("prune", "--keep", "0", "--yes")
    assert "--keep 0 keeps none" in pruned.out
    assert "newest" not in pruned.out
    assert made.run("du").out.splitlines()[-1] == "nothing to free"


def test_du_of_nothing(project: Callable[..., Laptop]) -> None:
    it = project(FILES)
    done = it.run("du")
    assert done.code == 0
    assert "is in the bucket" in done.out


def test_fsck_has_an_exit_code_of_its_own_and_repairs(made: Laptop) -> None:
    assert made.run("fsck", "--deep").out == "nothing is wrong\n"
    folder = next((made.home / ".dstack/bucket/projects").iterdir())
    named = next((folder / "names").iterdir())
    named.unlink()
    pack = next(path for path in folder.rglob("*") if "/data/" in path.as_posix() and path.is_file())
    pack.write_bytes(b"\1" + pack.read_bytes()[1:])
    plain = made.run("fsck")
    assert plain.code == 8
    assert f"names/{named.name}\n" in plain.out
    assert "1 problem: 1 left" in plain.out
    deep = made.run("fsck", "--deep")
    assert deep.code == 8
    assert "its bytes are damaged" in deep.out
    mended = made.run("fsck", "--deep", "--repair")
    assert mended.code == 0, mended.out
    assert "2 problems: 2 repaired, 0 left" in mended.out
    made.run("prune", "--yes")
    assert made.run("fsck", "--deep").out == "nothing is wrong\n"
    assert named.exists()
    assert made.run("run", "train", "--lr", "0.5").code == 0


def test_a_bucket_that_cannot_be_read_is_said_in_a_line(made: Laptop) -> None:
    folder = next((made.home / ".dstack/bucket/projects").iterdir())
    (folder / "names").rename(folder / "elsewhere")
    (folder / "names").write_text("a file")
    done = made.run("fsck")
    assert done.code in (6, 8)
    assert "Traceback" not in done.err
    assert Path(folder / "names").read_text() == "a file"
