"""Which jobs the hosts of a fleet can run."""

from __future__ import annotations

import asyncio
from typing import Any

from dstack.app.hosts.early_refusals import HostVerdicts, judge_placement
from dstack.app.hosts.fleet import Fleet
from dstack.errors import HostKeyError, HostUnreachableError
from dstack.model import Host, HostName
from tests.support.records.specs import FACTS, spec
from tests.support.runners.answering import LARGE, WAITS, Answering

SMALL = spec("small")


def judged(far: Exception) -> HostVerdicts:
    """The verdicts on a small and a large job by a host for small jobs, and a host that gives `far` for an answer."""

    async def open_runner(host: Host) -> Any:
        if host.name == "far":
            raise far
        return Answering(FACTS)

    async def play() -> HostVerdicts:
        fleet = Fleet(tuple(Host(name=HostName(name)) for name in ("near", "far")), open_runner)
        try:
            await fleet.connect()
            return await judge_placement(fleet, [SMALL, LARGE], patience=5.0)
        finally:
            await fleet.close()

    return asyncio.run(play())


def test_a_job_that_only_a_silent_host_might_run_waits() -> None:
    verdicts = judged(HostUnreachableError("far", "no route"))
    assert (verdicts.refused, verdicts.waits) == ({}, {"large": WAITS})


def test_a_job_that_no_host_can_run_is_refused() -> None:
    verdicts = judged(HostKeyError("the key of far is new"))
    assert list(verdicts.refused) == ["large"]
    assert "no host can run large" in str(verdicts.refused[LARGE.workflow])
    assert verdicts.waits == {}
