"""Whom the adversary goes for: dstack's own processes, never a job, not even one that has not begun."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faults.adversary import JOB, SUPERVISOR, Place
from tests.support.waiting import until

SUPERVISED = """
import os, sys, time
alive = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.fork()
time.sleep(60)
"""


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds `alive` of an attempt, and its fork, which is not yet what it is going to be."""
    attempt = tmp_path / "spool/attempt"
    attempt.mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", SUPERVISED, str(attempt / "alive")],
        env={**os.environ, "DSTACK_SLOTS_DIR": str(tmp_path / "slots")},
        start_new_session=True,
    )
    yield process
    os.killpg(process.pid, 9)
    process.wait()


def test_a_child_that_has_not_begun_to_be_the_job_is_no_supervisor(
    supervisor: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    place = Place(folder=tmp_path)
    until("both are seen", lambda: len(place.processes()) == 2)
    until("their roles are known", lambda: {found.role for found in place.processes()} <= {SUPERVISOR, JOB})
    roles = {found.pid: found.role for found in place.processes()}
    assert roles.pop(supervisor.pid) == SUPERVISOR
    assert list(roles.values()) == [JOB]
