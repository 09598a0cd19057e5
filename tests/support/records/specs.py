"""Values that runs and hosts have, complete and plain; a test names what matters to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dstack.model import Dependency, HostFacts, JobSpec, WorkflowName

FACTS = HostFacts(
    boot_id="boot", hostname="gpu", user="alice", uid=1, python="3.11", platform="linux", cpus=1, memory=1, gpus=(),
    git="2.39", docker=False, disk_free=1, dir="/home/alice/.dstack", place="place of alice", machine="machine",
)  # fmt: skip
LARGE_FACTS = replace(FACTS, cpus=4, memory=1 << 34, disk_free=1 << 40, place="", machine="")
"""A host that any job fits without GPUs or Docker, and that has nothing to be known again by."""


def spec(name: str = "job", inputs: Sequence[str] = (), **changes: Any) -> JobSpec:
    """A job that takes the artifacts of the workflows `inputs`; `changes` are fields of JobSpec."""
    plain = JobSpec(
        workflow=WorkflowName(name),
        script=f"run {name}",
        arguments=(),
        environment={},
        env={},
        env_from_caller=(),
        secrets=(),
        image=None,
        artifacts=(name,),
        inputs=tuple(Dependency(workflow=WorkflowName(each)) for each in inputs),
        variables={},
        code="c0de",
    )
    return replace(plain, **changes)
