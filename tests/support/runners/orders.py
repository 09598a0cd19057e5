"""Orders of jobs as a coordinator sends them."""

from __future__ import annotations

from typing import Any

from dstack.wire.job_messages import JobOrder

EMPTY = JobOrder(
    attempt="where/it/is/",
    project="proj",
    commit="c" * 40,
    tree="d" * 40,
    prefix="",
    script="true",
    arguments=(),
    environment={},
    image=None,
    artifacts=(),
    inputs=(),
    shm_size=None,
    max_duration=None,
    title="test",
    nonce="0123456789abcdef",
)


def job_order(**fields: Any) -> JobOrder:
    """An order of a job that does nothing, with other values of some fields."""
    return EMPTY.replace(**fields)
