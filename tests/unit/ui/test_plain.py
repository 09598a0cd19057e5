"""The lines of a run without a terminal: what a job counts as at the end."""

from __future__ import annotations

import io

from dstack.ui.plain import PlainScreen, closing_line, job_line, sum_word


def test_a_job_that_no_host_ever_had_counts_as_not_run() -> None:
    assert [sum_word("stopped", ""), sum_word("stopped", "gpu-1"), sum_word("failed", "")] == [
        "not run",
        "stopped",
        "failed",
    ]
    assert closing_line("a-1", ["failed", "not run", "not run"]) == "a-1: 1 failed, 2 not run"
    assert closing_line("a-1", ["not run", "running"]) == ""
    assert job_line("train", "stopped", "", "not run: prepare failed") == "train: not run (prepare failed)"
    assert job_line("train", "stopped", "gpu-1", "stopped by bob") == "train: stopped on gpu-1 (stopped by bob)"


def test_the_last_line_says_so() -> None:
    out = io.BytesIO()
    with PlainScreen("a-1", ["prepare", "train"], out=out) as screen:
        screen.job("prepare", "running", "gpu-1", "")
        screen.job("prepare", "failed", "gpu-1", "exit code 1")
        screen.job("train", "stopped", "", "not run: prepare failed")
    assert out.getvalue().decode().splitlines()[-2:] == ["train: not run (prepare failed)", "a-1: 1 failed, 1 not run"]
