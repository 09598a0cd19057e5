"""Which executor runs an attempt: the one place that knows all of them."""

from __future__ import annotations

from typing import Any, Mapping, Optional, Tuple, Type

from dstack.runner.base.spool import Attempt
from dstack.runner.executors.container import ContainerExecutor
from dstack.runner.executors.executor import Executor
from dstack.runner.executors.plain import PlainExecutor

EXECUTORS: Tuple[Type[Executor], ...] = (ContainerExecutor, PlainExecutor)
"""Every executor; the first that takes an order runs the attempt. The plain executor takes any order."""


def executor_for(attempt: Attempt, order: Mapping[str, Any]) -> Executor:
    """The executor of an attempt with this order."""
    return next(executor(attempt) for executor in EXECUTORS if executor.takes(order))


def executor_outside(attempt: Attempt) -> Optional[Executor]:
    """The executor that made something for the attempt outside of the supervisor's process tree; None without any.

    Judged by the traces in the attempt's folder alone: a damaged order must not hide a job that still runs.
    """
    return next((made for made in (executor(attempt) for executor in EXECUTORS) if made.created()), None)
