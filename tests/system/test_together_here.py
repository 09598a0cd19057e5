"""Two shipped coordinators on one machine, each with a "host" of its own: one of them dies while its job runs on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from dstack.model import RunStatus
from tests.system.adversary import COORDINATOR, Place
from tests.system.crowded import JOBS, Crowded
from tests.system.hosts.waiting import until


def test_a_job_whose_coordinator_was_killed_is_not_run_again_while_it_may_still_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one is sure that it died, for both are on one machine; of the job's own host it knows nothing."""
    monkeypatch.setenv("DSTACK_SLOTS_DIR", str(tmp_path / "slots"))
    crowded = Crowded(tmp_path, str(tmp_path / "bucket"), hosts=2, naps={**dict.fromkeys(JOBS, 0.1), "prepare": 8.0})
    place = Place(folder=tmp_path)
    record = crowded.submit()
    assert crowded.hand(record) == []
    until("the first job runs", crowded.marks)
    [job] = [job for job in crowded.view(record).jobs if job.workflow == "prepare"]
    logs = {str(path) for path in (tmp_path / job.host / "coordinators").glob("*.log")}
    [victim] = [
        found.pid
        for found in place.processes()
        if found.role == COORDINATOR and os.readlink(f"/proc/{found.pid}/fd/1") in logs
    ]
    os.kill(victim, signal.SIGKILL)
    until("the job has ended", lambda: ["end", "prepare"] in [mark[:2] for mark in crowded.marks()])
    assert [mark[:2] for mark in crowded.marks()] == [["begin", "prepare"], ["end", "prepare"]], crowded.logs()
    assert crowded.hand(record) == []
    until(
        "the run ends", lambda: crowded.view(record).status is not RunStatus.RUNNING, told=lambda: str(crowded.logs())
    )
    assert crowded.view(record).status is RunStatus.SUCCEEDED
    assert sorted(mark[1] for mark in crowded.marks() if mark[0] == "begin") == sorted(JOBS)
