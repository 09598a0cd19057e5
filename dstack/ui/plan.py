"""The output of `dstack run --dry-run`: the future of each job, and why."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

from dstack.app.queries.dry_run import Forecast, JobForecast
from dstack.ui.tables import Column, table

_WORDS = {
    Forecast.REUSED: "reused",
    Forecast.RUNS: "will run",
    Forecast.JOINS: "joins",
    Forecast.WAITS: "waits",
    Forecast.NOWHERE: "no host",
}
_COLUMNS = (
    Column(title="WORKFLOW", floor=8),
    Column(title="PLAN"),
    Column(title="HOST"),
    Column(title="WHY", floor=20, wraps=True),
)


def plan_text(fates: Sequence[JobForecast], stream: TextIO | None = None) -> str:
    """The plan as a table and a summary in the last line, without a newline at the end."""
    rows = [(fate.workflow, _WORDS[fate.fate], fate.host or "-", fate.reason) for fate in fates]
    reused = sum(fate.fate is Forecast.REUSED for fate in fates)
    total = f"{len(fates)} job{'' if len(fates) == 1 else 's'}"
    summary = f"{total}, all reused" if reused == len(fates) else f"{total}, {reused} reused"
    return f"{table(_COLUMNS, rows, stream or sys.stdout)}\n{summary}; nothing was run or recorded"
