"""Hand-overs: which of them meet in one coordinator of a host, and what a host must show of a bucket."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dstack.core.handover import HandOver, digest, rendezvous_name, unseen_text
from dstack.model import Host, HostName, RunId

HAND = HandOver(
    bucket="s3://lab/dstack",
    options={"region": "eu-1", "endpoint": "x"},
    credentials={"access_key_id": "a"},
    project="p",
    run=RunId("8204478254473-fbdwm3qmlb"),
    record=digest(b"record"),
    host=Host(name=HostName("gpu")),
)


def name(hand: HandOver = HAND, *, boot: str = "boot", program: str = "1.0") -> str:
    return rendezvous_name(hand, boot, program)


@pytest.mark.parametrize(
    "change",
    [
        {"run": RunId("8204478254474-fbdwm3qmlb")},
        {"credentials": {"access_key_id": "b"}},
        {"options": {"endpoint": "x", "region": "eu-1"}},
        {"caller": {"TOKEN": "t"}},
        {"project": "other"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_all_runs_of_one_bucket_meet_in_one_coordinator(change: dict[str, object]) -> None:
    assert name(replace(HAND, **change)) == name()  # type: ignore[arg-type]


def test_another_bucket_boot_or_program_has_a_coordinator_of_its_own() -> None:
    others = [
        name(replace(HAND, bucket="s3://lab/other")),
        name(replace(HAND, options={"region": "us-1"})),
        name(boot="another"),
        name(program="1.1"),
    ]
    assert len({name(), *others}) == 5


def test_no_secret_is_in_the_name() -> None:
    assert len(name()) == 24
    assert int(name(), 16)


def test_a_record_is_named_by_all_of_its_bytes() -> None:
    assert digest(b"record") == HAND.record != digest(b"record ")


def test_a_host_that_shows_no_use_of_the_bucket_is_told_which() -> None:
    assert "s3://lab/dstack" in unseen_text(HAND.bucket)
