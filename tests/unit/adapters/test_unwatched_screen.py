"""The log of a coordinator that nobody watches."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FULL = "/dev/full"
PROGRAM = """
import os, sys
from dstack.adapters.unwatched_screen import LogScreen
screen = LogScreen()
for number in range(3):
    screen.job("train", "running", "gpu-1", f"note {number}")
sys.stderr.write("goes on")
sys.stderr.flush()
os._exit(0)
"""


@pytest.mark.skipif(not os.path.exists(FULL), reason="this system has no device that is always full")
def test_a_full_disk_ends_no_coordinator() -> None:
    with open(FULL, "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (0, "goes on")
