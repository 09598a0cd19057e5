"""Whether the result of an earlier job with the same fingerprint may be taken: a pure decision over records."""

from __future__ import annotations

from dstack.core.format.records import RunRecord
from dstack.model import JobSpec


def fresh_reason(run: RunRecord, spec: JobSpec) -> str:
    """Why no earlier result counts for this job of the run; "" when an earlier result counts."""
    if spec.workflow in run.rerun:
        return f"{run.user} asked for it to run again"
    return "" if spec.reuse else "the workflow says reuse: false"
