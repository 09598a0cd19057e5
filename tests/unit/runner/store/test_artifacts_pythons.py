"""What is shipped to hosts for artifacts works on the oldest Pythons that a host may have."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.checkout import ROOT

VERSIONS = os.environ.get("DSTACK_HOST_PYTHONS", "3.9,3.10").split(",")


def works(python: str | None) -> bool:
    return python is not None and subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("version", [*VERSIONS, "this"])
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_a_round_of_artifacts(tmp_path: Path, version: str, locale: str) -> None:
    """In any locale, names that are no UTF-8 included."""
    python = sys.executable if version == "this" else shutil.which(f"python{version}")
    if python is None or not works(python):
        pytest.skip(f"there is no python{version} here")
    script = ROOT / "tests/support/runners/artifacts_round.py"
    answer = subprocess.run(
        [python, "-S", str(script), str(tmp_path)],
        env={"PYTHONPATH": str(ROOT), "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.endswith("103 19000 102 True\n"), answer.stdout
