"""A nonce in the queues of several hosts: a host that has refused it is asked no more, the others are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from dstack.app.effects.answers import NonceRefused, SlotAwaited, SlotHeld, SlotUnavailable
from dstack.app.hosts import fleet as fleets
from dstack.app.hosts.fleet import Fleet, address_of
from dstack.app.hosts.slot_wait import SlotRace
from dstack.app.transfer.attempt_watch import AttemptWatch
from dstack.core.format.keys import ProjectKeys
from dstack.core.format.records import Claim, Coordinator
from dstack.errors import DstackError, HostError, HostKeyError, HostUnreachableError, NoRoomError, NotHeldError
from dstack.model import Demand, ExitReport, Fingerprint, Host, HostFacts, HostName, Nonce, RunId, RunName
from tests.support.buckets.memory import MemoryBucket
from tests.support.records.specs import LARGE_FACTS

NONCE = Nonce("0123456789abcdef")
FACTS = replace(LARGE_FACTS, docker=True)


class FakeRunner:
    """A host that answers `hold` as `answer` does: raises, waits, or gives."""

    def __init__(self, name: str, answer: Callable[[], Any]) -> None:
        self.name = name
        self.asked = self.looks = 0
        self.has: tuple[str, ...] = ()
        self._answer = answer

    async def facts(self) -> HostFacts:
        return FACTS

    async def images(self, names: Sequence[str]) -> Sequence[str]:
        self.looks += 1
        await asyncio.sleep(0)
        return [name for name in names if name in self.has]

    async def hold(self, nonce: Nonce, demand: Demand, told: Callable[[str], None] = lambda text: None) -> None:
        self.asked += 1
        self.told = told
        await self._answer()

    async def drop(self, nonce: Nonce) -> None: ...
    async def close(self) -> None: ...

    async def follow(self, nonce: Nonce, offset: int) -> Any:
        yield b"all that it said\n"[offset:]

    async def wait(self, nonce: Nonce) -> ExitReport:
        return ExitReport(code=0)


async def refuse() -> None:
    raise HostError("h", "attempt was decided already")


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


async def give() -> None: ...


def fleet_of(*runners: FakeRunner) -> Fleet:
    by_name = {runner.name: runner for runner in runners}

    async def open_runner(host: Host) -> Any:
        return by_name[host.name]

    return Fleet(tuple(Host(name=HostName(runner.name)) for runner in runners), open_runner)


async def answers(*runners: FakeRunner, looks: int = 6) -> list[Any]:
    """What `wait` says, look after look, with the first host ranked first."""
    fleet = fleet_of(*runners)
    await fleet.connect()
    holding = SlotRace(fleet, NONCE, lambda: [runner.name for runner in runners], Demand(slots=1))
    try:
        return [await holding.wait(0.05) for _ in range(looks)]
    finally:
        await holding.close()
        await fleet.close()


def test_a_host_that_refused_the_nonce_does_not_hide_the_others() -> None:
    dead, good = FakeRunner("a", refuse), FakeRunner("b", give)
    found = asyncio.run(answers(dead, good, looks=2))
    assert found[0] == SlotAwaited()
    assert isinstance(found[1], SlotHeld)
    assert found[1].host == "b"
    assert dead.asked == 1


def test_a_host_that_refused_the_nonce_is_not_asked_again_while_another_lets_it_wait() -> None:
    dead, busy = FakeRunner("a", refuse), FakeRunner("b", wait_for_ever)
    assert asyncio.run(answers(dead, busy)) == [SlotAwaited()] * 6
    assert (dead.asked, busy.asked) == (1, 1)


def test_why_the_queue_of_a_host_cannot_be_used_is_said_until_it_can() -> None:
    async def stuck() -> None:
        runner.told("the lock is held by bob")
        await asyncio.sleep(0.12)
        runner.told("")
        await asyncio.Event().wait()

    runner = FakeRunner("a", stuck)
    found = asyncio.run(answers(runner))
    assert found[0] == SlotUnavailable("waits: a: the lock is held by bob")
    assert found[-1] == SlotAwaited()


def test_a_nonce_that_every_host_has_refused_is_given_up() -> None:
    one, two = FakeRunner("a", refuse), FakeRunner("b", refuse)
    found = asyncio.run(answers(one, two))
    assert found[-1] == NonceRefused()
    assert (one.asked, two.asked) == (1, 1)


def test_what_a_host_said_when_it_refused_is_kept_for_people() -> None:
    async def play() -> str:
        fleet = fleet_of(FakeRunner("a", refuse))
        await fleet.connect()
        holding = SlotRace(fleet, NONCE, lambda: ["a"], Demand(slots=1))
        while await holding.wait(0.05) != NonceRefused():
            pass
        await fleet.close()
        return holding.why()

    assert "attempt was decided already" in asyncio.run(play())


def test_a_connection_that_was_lost_while_it_waited_is_the_reason_and_not_what_follows_from_it() -> None:
    said: list[Exception] = [HostUnreachableError("a", "the connection was lost"), NotHeldError("a", "decided already")]

    async def cut_then_refuse() -> None:
        raise said.pop(0)

    async def play() -> str:
        fleet = fleet_of(FakeRunner("a", cut_then_refuse))
        await fleet.connect()
        holding = SlotRace(fleet, NONCE, lambda: ["a"], Demand(slots=1))
        while await holding.wait(0.05) != NonceRefused():
            pass
        await fleet.close()
        return holding.why()

    assert asyncio.run(play()) == "a: the connection was lost"


def test_a_host_whose_disk_is_full_is_passed_over_for_a_while_which_grows() -> None:
    async def full() -> None:
        raise NoRoomError("a", "the disk of the host is full")

    async def play() -> list[Any]:
        fleet = fleet_of(FakeRunner("a", full), FakeRunner("b", give))
        await fleet.connect()
        full_host, link = fleet.links["a"], SlotRace(fleet, NONCE, lambda: ["a"], Demand(slots=1))
        while await link.wait(0.05) != NonceRefused():
            pass
        found: list[Any] = [full_host.has_room, [each.host.name for each in fleet.candidates({})], fleet.full()]
        fleet.links["b"].note_full("b: the disk of the host is full")
        found.append(fleet.full())
        waits = []
        for _ in range(7):
            full_host.note_full("again")
            waits.append(round(full_host._full_wait))
        full_host.note_room()
        await fleet.close()
        return [*found, waits, full_host.has_room]

    assert asyncio.run(play()) == [
        False,
        ["b"],
        "",
        "a: the disk of the host is full; b: the disk of the host is full",
        [2, 4, 8, 16, 30, 30, 30],
        True,
    ]


def test_a_host_that_cannot_start_a_runner_now_is_looked_for_again() -> None:
    """It did not refuse the attempt, which goes on there."""
    good = FakeRunner("a", give)
    tries: list[DstackError | None] = [
        HostError("a", "python3 ended before the runner started"),
        HostKeyError("the key of a has CHANGED"),
        None,
    ]

    async def play() -> object:
        async def open_runner(host: Host) -> Any:
            error = tries.pop(0)
            if error is not None:
                raise error
            return good

        fleet = Fleet((Host(name=HostName("a")),), open_runner)
        attempt = ProjectKeys.of("p").job(Fingerprint("f" * 64), 1).attempt(1)
        told: list[DstackError | None] = []
        watching = AttemptWatch(
            MemoryBucket(), attempt, fleet.links["a"], nonce=NONCE, show=lambda _: None, trouble=told.append
        )
        try:
            report = await watching.wait(30)
            assert told[-1] is None, "the trouble is over"
            assert len(told) == 3
            return report
        finally:
            await watching.close()
            await fleet.close()

    assert asyncio.run(play()) == ExitReport(code=0)


def test_a_host_that_never_answers_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleets, "LATECOMER_WAIT_S", 0.01)
    good = FakeRunner("good", give)

    async def play() -> None:
        async def open_runner(host: Host) -> Any:
            if host.name == "hole":
                await wait_for_ever()
            return good

        fleet = Fleet((Host(name=HostName("hole")), Host(name=HostName("good"))), open_runner)
        try:
            await asyncio.wait_for(fleet.connect(), 10)
            assert list(fleet.facts()) == ["good"]
        finally:
            await fleet.close()

    asyncio.run(play())


def test_all_attempts_of_a_host_outside_the_inventory_share_one_runner() -> None:
    """However many a long-lived coordinator meets, it has one link for each such host."""
    opened: list[Host] = []

    async def open_runner(host: Host) -> Any:
        opened.append(host)
        return FakeRunner(str(host.name), lambda: asyncio.sleep(0))

    def claim(number: int, host: str) -> Claim:
        me = Coordinator(id="c", user="u", machine="m", boot_id="b", pid=1, lock="/l")
        address = address_of(Host(name=HostName(host), address=f"{host}.example.org"))
        name = RunName("a-1")
        return Claim(
            nonce=f"{number:032x}",
            run=RunId("r"),
            run_name=name,
            host=host,
            address=address,
            boot_id="b",
            coordinator=me,
        )

    async def scene() -> None:
        fleet = Fleet((), open_runner)
        for number in range(20):
            await fleet.link_of(claim(number, f"far-{number % 2}")).reach()
        await fleet.close()

    asyncio.run(scene())
    assert sorted(str(host.name) for host in opened) == ["far-0", "far-1"]


async def with_image(*runners: FakeRunner) -> list[str]:
    """Which of the hosts are known to have the image, which many jobs want at once."""
    fleet = fleet_of(*runners)
    await fleet.connect()
    await asyncio.gather(*(fleet.look_for("torch:2") for _ in range(9)))
    await fleet.look_for("torch:2")
    found = [str(each.host.name) for each in fleet.candidates({}, image="torch:2") if each.has_image]
    assert not any(each.has_image for each in fleet.candidates({}))
    await fleet.close()
    return found


def test_every_host_is_asked_once_for_an_image() -> None:
    one, two, three = (FakeRunner(name, give) for name in "abc")
    one.has, three.has = ("torch:2", "torch:1"), ("torch:1",)
    assert asyncio.run(with_image(one, two, three)) == ["a"]
    assert [runner.looks for runner in (one, two, three)] == [1, 1, 1]


def test_one_host_alone_is_not_asked_for_an_image() -> None:
    alone = FakeRunner("a", give)
    assert asyncio.run(with_image(alone)) == []
    assert alone.looks == 0
