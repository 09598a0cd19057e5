"""Two command lines ask for the same thing at the same moment: it is started once, and both come to the right end."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.people.chain import JOBS, chain
from tests.support.people.laptop import LIMIT

ROUNDS = int(os.environ.get("DSTACK_ROUNDS", "6"))


@pytest.mark.parametrize("number", range(ROUNDS))
def test_two_at_once_start_each_job_once(number: int, tmp_path: Path) -> None:
    """By the jobs' own marks; every job of both runs has succeeded or was reused, and what was pulled is whole."""
    laptop = chain(tmp_path)
    if number % 2:
        laptop.dstack("ps")  # the other half of the rounds begins with a bucket that nobody has used yet
    together = [laptop.start("run", JOBS[-1], "--json") for _ in range(2)]
    said = [process.communicate(timeout=LIMIT) for process in together]
    for process, (out, err) in zip(together, said, strict=True):
        assert process.returncode == 0, out + err
    assert laptop.local_marks() == list(JOBS)
    runs = [json.loads(out) for out, _ in said]
    assert {run["status"] for run in runs} == {"succeeded"}
    for job in range(len(JOBS)):
        ends = sorted(run["jobs"][job]["status"] for run in runs)
        assert ends == ["reused", "succeeded"]
        assert len({run["jobs"][job]["fingerprint"] for run in runs}) == 1
    assert runs[0]["run"] != runs[1]["run"]
