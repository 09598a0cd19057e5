"""The lease of a process is by the environment of its account, read once."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(("text", "printed"), [("6", "6.0 0.75 1.0"), ("nonsense", "120.0 15.0 20.0")])
def test_the_lease_of_a_process_is_that_of_its_environment(text: str, printed: str) -> None:
    program = "from dstack.app.protocol.lease import *; print(SILENCE_S, BEAT_INTERVAL_S, OVERDUE_S)"
    done = subprocess.run(
        [sys.executable, "-c", program], env={"DSTACK_SILENCE": text}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == printed
