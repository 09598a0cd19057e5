"""Chooses the executor of an attempt: the only module that knows all executors."""

from __future__ import annotations

from typing import Optional, Tuple, Type

from dstack.runner.base.spool import Attempt
from dstack.runner.executors.container import ContainerExecutor
from dstack.runner.executors.executor import Executor
from dstack.runner.executors.plain import PlainExecutor
from dstack.wire.job_messages import JobOrder

EXECUTORS: Tuple[Type[Executor], ...] = (ContainerExecutor, PlainExecutor)
"""Every executor. The first to take an order runs the attempt; the plain executor takes any order."""


def executor_for(attempt: Attempt, order: JobOrder) -> Executor:
    """The executor of an attempt with this order."""
    return next(executor(attempt) for executor in EXECUTORS if executor.takes(order))


def executor_outside(attempt: Attempt) -> Optional[Executor]:
    """The executor with something of the attempt outside of the supervisor's process tree; None without any.

    Judged by the traces in the attempt's folder alone: a damaged order must not hide a running job.
    """
    return next((made for made in (executor(attempt) for executor in EXECUTORS) if made.created()), None)
