"""What is seen of an attempt of another account: a restart alone is proof that nothing of it lives."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.core.foreign_attempts import (
    Sighting,
    belongs,
    describe,
    describe_elsewhere,
    is_other_machine,
    judge,
)
from dstack.core.format.records import Claim, Coordinator
from dstack.model import RunId, RunName
from dstack.wire import ALIVE, UNKNOWN, UNSEEN
from tests.support.records.specs import FACTS

CLAIM = Claim(
    nonce="n" * 16,
    run=RunId("8204478254473-fbdwm3qmlb"),
    run_name=RunName("calm-otter-7"),
    host="gpu",
    address={},
    boot_id=FACTS.boot_id,
    coordinator=Coordinator(id="c", user="alice", machine="laptop", boot_id="b", pid=1, lock="/x"),
    account=FACTS.user,
    folder=FACTS.dir,
    place=FACTS.place,
    machine=FACTS.machine,
)
SEEN = st.sampled_from([ALIVE, UNSEEN, UNKNOWN, "something new"])
BOOTS, MACHINES = st.sampled_from(["boot", "another"]), st.sampled_from(["machine", "other", ""])


def test_an_attempt_belongs_to_the_account_folder_and_place_of_its_claim() -> None:
    assert belongs(CLAIM, FACTS)
    for other in (
        replace(FACTS, user="bob"),
        replace(FACTS, dir="/tmp/dstack"),
        replace(FACTS, place="of another machine"),
    ):
        assert not belongs(CLAIM, other)


def test_a_claim_of_an_earlier_version_belongs_to_whoever_is_reached() -> None:
    old = replace(CLAIM, account="", folder="", place="")
    assert belongs(old, replace(FACTS, user="bob", place="x"))


@given(BOOTS, MACHINES, MACHINES, SEEN)
def test_only_another_boot_of_the_same_machine_is_a_restart(boot: str, claimed: str, reached: str, seen: str) -> None:
    claim, facts = replace(CLAIM, machine=claimed), replace(FACTS, boot_id=boot, machine=reached)
    found = judge(claim, facts, seen)
    assert (found is Sighting.RESTARTED) == (boot == "another" and claimed == reached != "")
    assert found in (Sighting.UNKNOWN, Sighting.RESTARTED) or boot == "boot", "what is seen counts in one boot only"
    if is_other_machine(claim, facts):
        assert found is Sighting.UNKNOWN


@pytest.mark.parametrize(
    ("seen", "sighting"), [(ALIVE, Sighting.ALIVE), (UNSEEN, Sighting.UNSEEN), (UNKNOWN, Sighting.UNKNOWN)]
)
def test_in_the_same_boot_the_answer_of_the_host_counts(seen: str, sighting: Sighting) -> None:
    assert judge(CLAIM, FACTS, seen) is sighting


def test_machines_that_cannot_be_told_apart_are_not_called_different() -> None:
    elsewhere = replace(FACTS, boot_id="another", machine="other")
    assert is_other_machine(CLAIM, elsewhere)
    assert not is_other_machine(replace(CLAIM, machine=""), elsewhere)
    assert not is_other_machine(CLAIM, replace(elsewhere, machine=""))
    assert not is_other_machine(CLAIM, replace(FACTS, machine="other")), "one boot is one machine"


@pytest.mark.parametrize("sighting", Sighting)
def test_a_line_for_people_names_the_account_and_the_command(sighting: Sighting) -> None:
    line = describe(sighting, "gpu", "bob", "dstack attach x")
    assert "bob" in line
    assert line.endswith("dstack attach x")
    assert ("runs on as" in line) == (sighting is Sighting.ALIVE)
    assert describe_elsewhere(sighting, "gpu", "dstack lost x").endswith("dstack lost x")
    assert "its owner" in describe(sighting, "gpu", "", "x")
