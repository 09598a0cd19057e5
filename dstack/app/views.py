"""Runs and jobs as people and scripts see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dstack.core.lifecycle import ENDED, GOOD
from dstack.model import JobStatus, RunId, RunName, RunStatus, WorkflowName


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """One job of a run. `attempt` and `generation` are 0 while there is no attempt; times are 0.0 while unknown."""

    workflow: WorkflowName
    status: JobStatus
    host: str = ""
    attempt: int = 0
    fingerprint: str = ""
    reused_from: RunName | None = None
    reason: str = ""
    generation: int = 0
    started: float = 0.0
    ended: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run with its jobs in the order of its plan. Times are seconds since the epoch; `ended` 0.0: not yet."""

    id: RunId
    run: RunName
    workflow: WorkflowName
    status: RunStatus
    user: str
    submitted: float
    jobs: tuple[JobView, ...]
    ended: float = 0.0


def overall_status(statuses: Sequence[JobStatus]) -> RunStatus:
    """The status of a run by those of its jobs: RUNNING while one is open, else the worst of them."""
    found = set(statuses)
    if found - ENDED:
        return RunStatus.RUNNING
    if JobStatus.FAILED in found:
        return RunStatus.FAILED
    if JobStatus.LOST in found:
        return RunStatus.LOST
    return RunStatus.STOPPED if found - GOOD else RunStatus.SUCCEEDED
