"""What a machine lacks is skipped with a reason, failed where it is required, and played once it is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.checkout import ROOT

WORKERS = ("-n", "2")
SUITE = """
import os
import pytest
from tests.lacking import missing

@pytest.mark.parametrize("number", [1, 2])
def test_with_an_engine(number):
    if "ENGINE" not in os.environ:
        missing("docker", "none answers")

@pytest.fixture(scope="session")
def azurite():
    if "AZURITE" not in os.environ:
        missing("azurite", "npm has it")

def test_with_azurite(azurite):
    pass

def test_without():
    pass

def test_for_another_reason():
    pytest.skip("only root may do this")
"""


def play(folder: Path, *options: str, session: str = "unit", **machine: str) -> tuple[int, str]:
    """The suite on a machine that has what `machine` names -> exit code and the last line of pytest."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    environment |= {"PYTHONPATH": str(ROOT), "NOX_CURRENT_SESSION": session, **machine}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.lacking", "--rootdir", str(folder), *options]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, re.sub(r" in [0-9.]+s.*", "", done.stdout.splitlines()[-1])


def test_the_second_run_plays_what_the_first_lacked_and_nothing_twice(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    assert play(tmp_path, *WORKERS) == (0, "1 passed, 4 skipped")
    again = [*WORKERS, "--skipped-before", "--require-docker", "--require-azurite"]
    code, told = play(tmp_path, *again, ENGINE="yes")
    assert (code, re.sub(r", \d deselected", "", told)) == (1, "2 passed, 1 error")
    code, told = play(tmp_path, *again, ENGINE="yes", AZURITE="yes")
    assert (code, re.sub(r", \d deselected", "", told)) == (0, "1 passed")
    assert play(tmp_path, *again)[0] == 0


def test_each_session_has_skips_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    play(tmp_path, session="unit")
    play(tmp_path, session="hosts-python", ENGINE="yes", AZURITE="yes")
    there = {"ENGINE": "yes", "AZURITE": "yes"}
    assert play(tmp_path, "--skipped-before", session="hosts-python", **there) == (0, "5 deselected")
    assert play(tmp_path, "--skipped-before", session="unit", **there) == (0, "3 passed, 2 deselected")


def test_ci_types_the_command_of_the_readme_first() -> None:
    script = (ROOT / ".ci/run").read_text()
    pattern = re.search(r"grep -x '(.+)' README.md", script)
    assert pattern, "it does not look into the README"
    told = subprocess.run(["grep", "-x", pattern[1], "README.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout == "python3 -m venv .venv && . .venv/bin/activate && pip install -e '.[dev]' && nox\n"
    assert script.index('bash -c "$command"') < script.index("npm install")
