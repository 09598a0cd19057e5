"""What is shipped to hosts for artifacts works on the oldest Pythons that a host may have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.checkout import ROOT

PYTHONS = {
    "this one": sys.executable,
    "the oldest of hosts": os.environ.get("DSTACK_HOST_PYTHON"),
    "the oldest of coordinators": os.environ.get("DSTACK_COORDINATOR_PYTHON"),
}


@pytest.mark.parametrize("which", PYTHONS)
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_a_round_of_artifacts(tmp_path: Path, which: str, locale: str) -> None:
    """In any locale, names that are no UTF-8 included."""
    python = PYTHONS[which]
    if python is None:
        pytest.skip("nox names no such Python")
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
