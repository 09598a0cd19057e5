"""Attempts whose hosts answer under another account: whose they are never depends on how an inventory names a host."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from dstack.app.effects.answers import ForeignAttempt, HostUnreachable, JobStarted
from dstack.app.hosts.fleet import Fleet, address_of
from dstack.app.hosts.hosts_of_claims import ClaimHosts
from dstack.app.protocol.liveness import Observer
from dstack.core.foreign_attempts import Sighting
from dstack.core.format.keys import ProjectKeys
from dstack.core.format.records import Claim, Coordinator
from dstack.errors import HostUnreachableError
from dstack.model import Host, HostFacts, HostName, RunId, RunName
from dstack.wire import ALIVE, STARTED, UNKNOWN, UNSEEN
from tests.support.buckets.memory import MemoryBucket
from tests.support.records.screens import Seen
from tests.support.records.specs import FACTS

BOB = replace(FACTS, user="bob", dir="/home/bob/.dstack", place="place of bob")
GPU = Host(name=HostName("gpu"), address="gpu.example.org")
OWNER = Coordinator(id="c", user="alice", machine="laptop", boot_id="l", pid=1, lock="/x")
CLAIM = Claim(
    nonce="n" * 32, run=RunId("r"), run_name=RunName("r-1"), host="gpu", address=address_of(GPU), boot_id="boot",
    coordinator=OWNER, account="alice", folder="/home/alice/.dstack", place="place of alice", machine="machine",
)  # fmt: skip


class Lab:
    """Hosts by the user and address of their entries: the facts that a connection finds there, None for nobody."""

    def __init__(self, answers: dict[tuple[str | None, str | None], HostFacts | None], *, seen: str = UNSEEN) -> None:
        self.answers = answers
        self.seen = seen
        self.asked: list[str] = []

    async def open(self, host: Host) -> Any:
        facts = self.answers.get((host.user, host.address))
        if facts is None:
            raise HostUnreachableError(host.name, "no route")
        return Runner(self, facts)


class Runner:
    def __init__(self, lab: Lab, facts: HostFacts) -> None:
        self.lab = lab
        self.found = facts

    async def facts(self) -> HostFacts:
        return self.found

    async def verdict(self, nonce: str) -> str:
        self.lab.asked.append(f"verdict as {self.found.user}")
        return STARTED

    async def sighting(self, nonce: str, account: str) -> str:
        self.lab.asked.append(f"sighting of {account}")
        return self.lab.seen

    async def close(self) -> None: ...


def found(lab: Lab, *inventory: Host, claim: Claim = CLAIM) -> tuple[Any, float, dict[str, str]]:
    """The verdict on the claim, the seconds of silence that are counted for it, and the sightings that are told."""

    async def scene() -> tuple[Any, float, dict[str, str]]:
        fleet = Fleet(inventory, lab.open)
        observer = Observer(MemoryBucket(), ProjectKeys.of("p"), sure=lambda _: None, boottime=lambda: 0.0)
        hosts = ClaimHosts(fleet, observer, Seen())
        for link in fleet.links.values():
            if lab.answers.get((link.host.user, link.host.address)):
                await link.reach()
        verdict = await hosts.verdict(claim)
        unreachable = hosts.unreachable()
        told = dict(hosts.sightings())
        await fleet.close()
        return verdict, float(len(unreachable)), told

    return asyncio.run(scene())


@pytest.mark.parametrize(("seen", "sighting"), [(ALIVE, "alive"), (UNSEEN, "unseen"), (UNKNOWN, "unknown")])
def test_another_account_on_the_host_is_no_silence(seen: str, sighting: str) -> None:
    lab = Lab({(None, "gpu.example.org"): BOB}, seen=seen)
    verdict, silent, told = found(lab, GPU)
    assert verdict == ForeignAttempt(sighting=Sighting(sighting))
    assert not silent
    assert told == {CLAIM.nonce: sighting}
    assert lab.asked == ["sighting of alice"]


def test_an_inventory_that_logs_in_as_the_owner_reaches_the_attempt_itself() -> None:
    """`--hosts` with `user: alice`: the entry in the claim would lead to the caller's own account."""
    as_alice = replace(GPU, user="alice")
    lab = Lab({("alice", "gpu.example.org"): FACTS, (None, "gpu.example.org"): BOB})
    assert found(lab, as_alice) == (JobStarted(), 0.0, {})
    assert lab.asked == ["verdict as alice"]


def test_the_machine_may_have_another_name_in_the_inventory() -> None:
    box = replace(GPU, name=HostName("box"), address="10.0.0.7")
    lab = Lab({(None, "10.0.0.7"): FACTS})
    assert found(lab, box) == (JobStarted(), 0.0, {})
    lab = Lab({(None, "10.0.0.7"): BOB}, seen=ALIVE)
    assert found(lab, box)[0] == ForeignAttempt(sighting=Sighting.ALIVE)


def test_an_entry_of_that_name_that_leads_to_another_user_takes_nothing_away() -> None:
    """The owner uses an inventory in which the host has another user; the entry in the claim still leads home."""
    as_bob = replace(GPU, user="bob")
    lab = Lab({("bob", "gpu.example.org"): BOB, (None, "gpu.example.org"): FACTS})
    assert found(lab, as_bob) == (JobStarted(), 0.0, {})


def test_a_host_that_nothing_reaches_is_silent() -> None:
    verdict, silent, told = found(Lab({}), GPU)
    assert (verdict, silent, told) == (HostUnreachable(), 1.0, {})


def test_another_machine_under_that_name_says_nothing_of_the_host() -> None:
    other = replace(BOB, boot_id="other", machine="another machine")
    verdict, silent, _ = found(Lab({(None, "gpu.example.org"): other}), GPU)
    assert (verdict, silent) == (HostUnreachable(), 1.0)


@pytest.mark.parametrize(
    ("machine", "sighting"),
    [("machine", Sighting.RESTARTED), ("", Sighting.UNKNOWN)],
    ids=["the same", "cannot be told"],
)
def test_another_boot_is_a_death_of_the_same_machine_alone(machine: str, sighting: Sighting) -> None:
    lab = Lab({(None, "gpu.example.org"): replace(BOB, boot_id="next", machine=machine)}, seen=ALIVE)
    assert found(lab, GPU)[0] == ForeignAttempt(sighting=sighting)
    assert lab.asked == [], "a ticket of another boot is none of the attempt's"


def test_a_folder_that_was_made_anew_is_another_one() -> None:
    """The account's own ~/.dstack was removed: what ran there may run on."""
    lab = Lab({(None, "gpu.example.org"): replace(FACTS, place="made anew")}, seen=ALIVE)
    assert found(lab, GPU)[0] == ForeignAttempt(sighting=Sighting.ALIVE, own_account=True)


def test_a_claim_of_an_earlier_version_names_no_account_and_is_asked_about_as_before() -> None:
    old = replace(CLAIM, account="", folder="", place="", machine="")
    assert found(Lab({(None, "gpu.example.org"): BOB}), GPU, claim=old)[0] == JobStarted()


def test_a_sighting_is_not_told_any_longer_once_the_owner_is_there() -> None:
    lab = Lab({(None, "gpu.example.org"): BOB})

    async def scene() -> Sequence[dict[str, str]]:
        fleet = Fleet((GPU,), lab.open)
        observer = Observer(MemoryBucket(), ProjectKeys.of("p"), sure=lambda _: None, boottime=lambda: 0.0)
        hosts = ClaimHosts(fleet, observer, Seen())
        await hosts.verdict(CLAIM)
        first = dict(hosts.sightings())
        link, reached = await fleet.locate(CLAIM)
        await link.drop_runner(reached.runner)
        lab.answers[None, "gpu.example.org"] = FACTS
        await hosts.verdict(CLAIM)
        second = dict(hosts.sightings())
        await fleet.close()
        return first, second

    assert asyncio.run(scene()) == ({CLAIM.nonce: "unseen"}, {})
