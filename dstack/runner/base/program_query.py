"""Questions to other programs of the host. None may hang: each has a time-out."""

from __future__ import annotations

import subprocess
from typing import List, Optional

QUERY_TIMEOUT_S = 5.0


def ask_program(command: List[str]) -> Optional[str]:
    """The output of a program; None when the program is absent, fails, or prints nothing within QUERY_TIMEOUT_S
    seconds."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=QUERY_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None
