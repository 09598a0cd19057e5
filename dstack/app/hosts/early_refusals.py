"""The jobs refused or delayed by the hosts of a fleet, asked before anything is recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dstack.app.hosts.fleet import Fleet
from dstack.app.hosts.silent_host_wait import Prospects
from dstack.errors import DstackError, NoHostError
from dstack.model import JobSpec, WorkflowName

SLOW_HOSTS_S = 5.0
"""Seconds for slow hosts to answer, where none of the other hosts can run a job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostVerdicts:
    """The verdicts on jobs, by workflow; a job with a fitting host now is in neither mapping."""

    refused: Mapping[WorkflowName, DstackError] = field(default_factory=dict)
    """The error with which a run of the job would end."""
    waits: Mapping[WorkflowName, str] = field(default_factory=dict)
    """Why the job would wait for a silent host."""


async def judge_placement(fleet: Fleet, jobs: Sequence[JobSpec], *, patience: float = SLOW_HOSTS_S) -> HostVerdicts:
    """The verdicts on `jobs` by a connected fleet; silent hosts get `patience` seconds to answer where they matter."""
    prospects = Prospects(fleet)
    if any(map(prospects.of, jobs)):
        await fleet.wait_for_tries(patience)
    refused: dict[WorkflowName, DstackError] = {}
    waits: dict[WorkflowName, str] = {}
    for spec in jobs:
        try:
            prospect = prospects.require(spec)
        except NoHostError as error:
            refused[spec.workflow] = error
            continue
        if prospect is not None:
            waits[spec.workflow] = prospect.note
    return HostVerdicts(refused=refused, waits=waits)
