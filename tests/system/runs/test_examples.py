"""The examples run as they are, on the embedded default, and run again without starting anything."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.checkout import ROOT
from tests.support.people.laptop import Laptop

EXAMPLES = ROOT / "examples"


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    made = Laptop(tmp_path)
    # The jobs find the libraries of the environment that the tests run in, as in an activated one.
    made.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{made.environment['PATH']}"
    return made


def use(laptop: Laptop, example: str) -> None:
    shutil.copytree(EXAMPLES / example, laptop.root, dirs_exist_ok=True)
    laptop.commit()


def test_hello_says_hello(laptop: Laptop) -> None:
    use(laptop, "hello")
    assert "HELLO, MOON" in laptop.dstack("run", "shout", "--whom", "moon").stdout
    assert laptop.dstack("check").stdout.startswith("2 workflows")


def test_digits_trains_and_draws_a_picture(laptop: Laptop, tmp_path: Path) -> None:
    use(laptop, "digits")
    first = laptop.run_json("evaluate", "--epochs", "12")
    assert first["status"] == "succeeded"
    laptop.dstack("artifacts", "pull", first["run"], "evaluate", "-o", str(tmp_path / "out"))
    picture = (tmp_path / "out" / "report" / "confusion.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n")
    assert json.loads((tmp_path / "out" / "report" / "metrics.json").read_text())["accuracy"] > 0.9
    again = laptop.run_json("evaluate", "--epochs", "12")
    assert [job["status"] for job in again["jobs"]] == ["reused"] * 3
    slower = laptop.run_json("evaluate", "--epochs", "12", "--lr", "0.001")
    assert [job["status"] for job in slower["jobs"]] == ["reused", "succeeded", "succeeded"]
