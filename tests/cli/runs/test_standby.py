"""What an attended run does to be left to its hosts: when they are asked, which, how often, what people are told."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from dstack.adapters.unwatched_screen import LogScreen
from dstack.app.coordination import heartbeat
from dstack.app.coordination.handover import HandoverResult, LeftHost
from dstack.app.coordination.heartbeat import HeartbeatWriter
from dstack.app.hosts.fleet import Fleet
from dstack.core.format.records import Coordinator
from dstack.errors import CredentialsError, HostUnreachableError
from dstack.model import Host, HostName, JobStatus
from dstack.session import standby
from dstack.session.standby import Standby, StartScreen, outlook
from tests.support.buckets.memory import MemoryBucket
from tests.support.simulator.world import run_of

ME = Coordinator(id="me", user="alice", machine="laptop", boot_id="l", pid=1, lock="/x/me.lock")
RECORD = run_of(1, ("a",))


class Lab:
    """Hosts of which some are reached, and what is handed to them; `until` is when lent credentials end."""

    def __init__(self, *names: str, local: bool = False) -> None:
        self.there = set(names)
        self.handed: list[tuple[str, ...]] = []
        self.open = 0
        self.until: float | None = None
        self.fails: Exception | None = None
        self.fleet = Fleet(tuple(Host(name=HostName(name), local=local) for name in ("a", "b")), self._opened)
        self.screen = StartScreen(LogScreen())
        self.bucket = MemoryBucket()

    async def _opened(self, host: Host) -> Any:
        if host.name not in self.there:
            raise HostUnreachableError(host.name, "it is off")
        return SimpleNamespace(facts=self._facts, close=self._facts)

    async def _facts(self) -> None: ...

    def opened(self) -> Any:
        self.open += 1
        return self

    async def ready(self, record: object) -> tuple[str, ...]:
        assert record is RECORD
        return tuple(name for name, link in self.fleet.links.items() if link.reached)

    async def hand(self, ready: tuple[str, ...], record: object, *, attendant: Coordinator) -> HandoverResult:
        assert (record, attendant) == (RECORD, ME)
        assert self.bucket.objects, "whoever finds no heartbeat takes the run up"
        self.handed.append(ready)
        if self.fails is not None:
            raise self.fails
        names = tuple(HostName(name) for name in ready)
        until = () if self.until is None else ((names[0], self.until),)
        return HandoverResult(taken=names, left=(), until=until)

    async def close(self) -> None:
        self.open -= 1

    def play(self, scene: Callable[[], Any]) -> None:
        """The scene, beside what keeps the run left to its hosts."""

        async def both() -> None:
            heartbeat = HeartbeatWriter(self.bucket, "projects/p/coordinators/me/hb", print)
            async with heartbeat:
                keeping = asyncio.create_task(
                    Standby(self.opened, self.fleet, RECORD, screen=self.screen).keep(ME, heartbeat)
                )
                await scene()
                keeping.cancel()
                await asyncio.gather(keeping, return_exceptions=True)
            assert self.open == 0, "nothing stays open on a host"

        asyncio.run(both())

    async def awaits(self, count: int) -> None:
        deadline = time.monotonic() + 10
        while len(self.handed) < count:
            assert time.monotonic() < deadline, self.handed
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standby, "STANDBY_DELAY_S", 0.2)
    monkeypatch.setattr(standby, "STANDBY_LOOK_S", 0.05)


def begin(lab: Lab, status: JobStatus = JobStatus.RUNNING) -> None:
    lab.screen.job("a", status, "a", "")


@pytest.mark.parametrize("status", [JobStatus.RUNNING, JobStatus.QUEUED])
def test_hosts_are_asked_once_the_first_job_is_past_its_start(status: JobStatus) -> None:
    lab = Lab("a", "b")

    async def scene() -> None:
        for early in (JobStatus.WAITING, JobStatus.PREPARING, JobStatus.REUSED):
            begin(lab, early)
        await asyncio.sleep(0.4)
        assert lab.handed == []
        begin(lab, status)
        await lab.awaits(1)
        await asyncio.sleep(0.3)

    lab.play(scene)
    assert lab.handed == [("a", "b")]


def test_the_heartbeat_names_the_hosts_that_stand_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_INTERVAL_S", 0.01)
    lab = Lab("a", "b")

    async def scene() -> None:
        begin(lab)
        await lab.awaits(1)
        async with asyncio.timeout(10):
            while json.loads(lab.bucket.get("projects/p/coordinators/me/hb") or b"{}").get("standby") != ["a", "b"]:
                await asyncio.sleep(0.01)

    lab.play(scene)


def test_a_run_that_is_over_soon_is_handed_to_nobody() -> None:
    lab = Lab("a")

    async def scene() -> None:
        begin(lab)
        await asyncio.sleep(0.1)

    lab.play(scene)
    assert lab.handed == []


def test_this_machine_alone_is_asked_nothing() -> None:
    lab = Lab("a", "b", local=True)

    async def scene() -> None:
        begin(lab)
        await asyncio.sleep(0.4)

    lab.play(scene)
    assert lab.handed == []


def test_a_host_that_comes_late_gets_the_run_and_one_that_comes_and_goes_does_not_get_it_for_ever() -> None:
    lab = Lab("a")

    async def scene() -> None:
        begin(lab)
        await lab.awaits(1)
        lab.there.add("b")
        await lab.awaits(2)
        link = lab.fleet.links["b"]
        for _ in range(5):
            await link.drop_runner((await link.reach()).runner)
            await asyncio.sleep(0.1)

    lab.play(scene)
    assert lab.handed == [("a",), ("a", "b")]


def test_lent_credentials_are_lent_again_before_they_end(capsys: pytest.CaptureFixture[str]) -> None:
    lab = Lab("a")
    lab.until = time.time() + standby.RENEW_BEFORE_S + 0.5

    async def scene() -> None:
        begin(lab)
        await lab.awaits(1)
        lab.until = time.time() + 3 * standby.RENEW_BEFORE_S
        assert len(lab.handed) == 1
        await lab.awaits(2)
        await asyncio.sleep(0.3)

    lab.play(scene)
    assert len(lab.handed) == 2
    assert capsys.readouterr().out.count("would go on without this machine") == 1, "nothing new is to be said"


@pytest.mark.parametrize("error", [CredentialsError("sign in again"), ValueError("unforeseen")])
def test_what_goes_wrong_is_one_line_and_ends_no_run(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    lab = Lab("a")
    lab.fails = error

    async def scene() -> None:
        begin(lab)
        await lab.awaits(1)
        await asyncio.sleep(0.2)

    lab.play(scene)
    assert f"no host stands by: {'' if isinstance(error, CredentialsError) else 'ValueError: '}{error}" in (
        capsys.readouterr().out
    )


def handed(*taken: str, **left: str) -> HandoverResult:
    names = tuple(LeftHost(HostName(name), why) for name, why in left.items())
    return HandoverResult(taken=tuple(HostName(name) for name in taken), left=names)


def test_people_are_told_whether_the_lid_may_be_shut() -> None:
    assert outlook(handed("a", "b")) == "a, b would go on without this machine: it may be shut"
    assert outlook(handed(a="a: it is full")) == "the run needs this machine: a: it is full"
    assert outlook(handed(here="")) == ""
    assert outlook(handed("a", here="")) == "a would go on without this machine, here would not"
    assert outlook(handed("a", b="b: it is full")) == "a would go on without this machine, b would not: b: it is full"
