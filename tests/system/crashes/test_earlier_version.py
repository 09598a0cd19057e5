"""The bucket and the host of an earlier dstack, read, continued and finished by this one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.earlier.layout import lay_out
from tests.support.people.laptop import Laptop


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    lay_out(tmp_path)
    (tmp_path / "project").rename(tmp_path / "files")
    made = Laptop(tmp_path)
    made.write({str(path.relative_to(tmp_path / "files")): path.read_text() for path in files(tmp_path / "files")})
    made.commit()
    return made


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def runs(laptop: Laptop) -> dict[tuple[str, str], str]:
    """The names of the runs by workflow and status, of several the oldest."""
    listed: list[dict[str, Any]] = json.loads(laptop.dstack("ps", "-a", "--json").stdout)
    return {(run["workflow"], run["status"]): run["run"] for run in listed}


def spool(laptop: Laptop) -> list[str]:
    return [path.name for path in (laptop.home / ".dstack/spool").iterdir()]


def test_what_an_earlier_dstack_finished_is_read(laptop: Laptop, tmp_path: Path) -> None:
    found = runs(laptop)
    assert sorted(found) == [
        ("after", "running"),
        ("broken", "failed"),
        ("patient", "stopped"),
        ("queued", "running"),
        ("train", "succeeded"),
    ]
    name = found["train", "succeeded"]
    assert laptop.statuses(name) == {"prepare": "succeeded", "train": "succeeded"}
    assert laptop.dstack("logs", name, "train").stdout == "trained with 0.002\n"
    assert "model/weights" in laptop.dstack("artifacts", "ls", name).stdout
    laptop.dstack("artifacts", "pull", name, "prepare", "-o", str(tmp_path / "out"))
    assert (tmp_path / "out/data/link").readlink() == Path("rows")
    assert (tmp_path / "out/data/rows").read_text() == "1 2 3\n"
    assert "did not reuse" not in laptop.dstack("why", name).stdout
    failed, stopped = found["broken", "failed"], found["patient", "stopped"]
    assert "exit code 3" in laptop.dstack("show", failed).stdout
    assert laptop.dstack("logs", stopped, "patient", code=None).stdout.startswith("begun\n")
    laptop.dstack("fsck")


def test_what_an_earlier_dstack_made_is_reused(laptop: Laptop) -> None:
    first = runs(laptop)["train", "succeeded"]
    again = laptop.run_json("train")
    assert {job["workflow"]: (job["status"], job["reused_from"]) for job in again["jobs"]} == {
        "prepare": ("reused", first),
        "train": ("reused", first),
    }


def test_runs_that_an_earlier_dstack_left_open_are_finished(laptop: Laptop, tmp_path: Path) -> None:
    """The job that ended with nobody there is collected, not run again; the queued one runs; what waited goes on."""
    found = runs(laptop)
    left_open, queued = found["after", "running"], found["queued", "running"]
    laptop.dstack("attach", left_open)
    assert laptop.statuses(left_open) == {"patient": "succeeded", "after": "succeeded"}
    assert laptop.dstack("logs", left_open, "patient").stdout == "begun\nended\n"
    assert laptop.dstack("logs", left_open, "after").stdout == "took after the gate\n"
    laptop.dstack("attach", queued)
    assert laptop.statuses(queued) == {"queued": "succeeded"}
    laptop.dstack("artifacts", "pull", queued, "queued", "-o", str(tmp_path / "out"))
    assert (tmp_path / "out/last.txt").read_text() == "at last\n"
    attempts = [key.name for key in (laptop.home / ".dstack/bucket").rglob("a/*") if key.parent.name == "a"]
    assert attempts.count("000002") == 1, "the stopped attempt was followed by the one that was left open, and no third"
    laptop.dstack("fsck")
    laptop.run_json("after")
    assert not [name for name in spool(laptop) if (laptop.home / f".dstack/spool/{name}/attempt.json").exists()]
