"""The disk usage of a project in the bucket, by kind and by workflow, for people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from dstack.app.maintenance.blocking_driver import parallel
from dstack.app.maintenance.bucket_survey import Amount, GenerationFacts, Survey
from dstack.app.maintenance.prune_plan import workflow_of
from dstack.core.format.key_parser import ARTIFACTS, LOGS
from dstack.ports import Bucket


@dataclass(frozen=True, slots=True, kw_only=True)
class SortWeight:
    """Everything of one kind: artifacts, logs, records or code."""

    what: str
    bytes: int
    objects: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowWeight:
    """All jobs of a workflow. `results` counts the reusable results."""

    workflow: str
    bytes: int
    artifacts: int
    logs: int
    results: int
    objects: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The usage by kind and by workflow, the biggest first. `used` are bytes of jobs in use by unfinished runs;
    `unknown` counts objects never written by dstack of this version."""

    sorts: tuple[SortWeight, ...] = ()
    workflows: tuple[WorkflowWeight, ...] = field(default=())
    used: int = 0
    unknown: int = 0

    @property
    def bytes(self) -> int:
        return sum(each.bytes for each in self.sorts)

    @property
    def objects(self) -> int:
        return sum(each.objects for each in self.sorts)


def weigh(bucket: Bucket, found: Survey) -> Weights:
    """Add up a survey; reads one record for each job, for the name of its workflow."""
    named: dict[str, list[GenerationFacts]] = {}
    generations = list(found.generations.values())
    for each, name in zip(generations, parallel(lambda each: workflow_of(bucket, each), generations), strict=True):
        named.setdefault(name, []).append(each)
    workflows = [_workflow(name, group) for name, group in named.items() if any(each.remains for each in group)]
    return Weights(
        sorts=tuple(
            sorted(
                (SortWeight(what=what, bytes=one.bytes, objects=one.objects) for what, one in found.sorts.items()),
                key=lambda each: (-each.bytes, each.what),
            )
        ),
        workflows=tuple(sorted(workflows, key=lambda each: (-each.bytes, each.workflow))),
        used=sum(each.bytes for each in generations if found.used(each)),
        unknown=found.rest.objects,
    )


def _workflow(name: str, group: Iterable[GenerationFacts]) -> WorkflowWeight:
    group = list(group)
    return WorkflowWeight(
        workflow=name,
        bytes=sum(each.bytes for each in group),
        artifacts=sum(each.sorts.get(ARTIFACTS, Amount()).bytes for each in group),
        logs=sum(each.sorts.get(LOGS, Amount()).bytes for each in group),
        results=sum(each.made > 0 and not each.tomb for each in group),
        objects=sum(each.objects for each in group),
    )
