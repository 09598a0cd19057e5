"""Every key that `keys.py` spells is found again by `place_of`."""

from __future__ import annotations

import pytest

from dstack.core.format.key_parser import Kind, place_of, sort_of
from dstack.core.format.keys import ProjectKeys
from dstack.model import Fingerprint, RunId, RunName, WorkflowName

KEYS = ProjectKeys.of("p")
RUN = KEYS.run(RunId("8204478254473-fbdwm3qmlb"))
JOB = KEYS.job(Fingerprint("ab" * 32), 12)
ATTEMPT = JOB.attempt(3)
SPELLED = {
    Kind.NAME: KEYS.name(RunName("calm-otter-7")),
    Kind.RUN: RUN.record,
    Kind.STOP: RUN.stop(None),
    Kind.OUTCOME: RUN.job(WorkflowName("train")),
    Kind.FINAL: RUN.final,
    Kind.WHY: JOB.why,
    Kind.WANT: JOB.want(RUN.run),
    Kind.PIN: JOB.pin(RUN.run),
    Kind.USER: JOB.user(7),
    Kind.TOMB: JOB.tomb,
    Kind.CLAIM: ATTEMPT.claim,
    Kind.OWNER: ATTEMPT.owner(1),
    Kind.STARTED: ATTEMPT.started,
    Kind.LOG: ATTEMPT.log(4096),
    Kind.DATA: ATTEMPT.pack("cd" * 32),
    Kind.MANIFEST: ATTEMPT.manifest,
    Kind.END: ATTEMPT.end,
    Kind.GONE: ATTEMPT.gone,
    Kind.RESULT: JOB.result,
    Kind.HEARTBEAT: KEYS.heartbeat("0f" * 16),
    Kind.LOOKER: RUN.coordinator("0f" * 16),
    Kind.OWN: f"{KEYS.runs_of('alice', 'her laptop')}{RUN.run}",
    Kind.INVENTORY: f"{KEYS.hosts}999998",
    Kind.DIFF: KEYS.diff("e" * 40),
    Kind.FILES: KEYS.files("f" * 64),
}


def test_every_kind_has_a_key_here() -> None:
    assert set(Kind) - set(SPELLED) == {Kind.TAG, Kind.UNKNOWN}


@pytest.mark.parametrize("kind", SPELLED, ids=lambda kind: kind.name)
def test_a_key_is_found_again_with_its_parts(kind: Kind) -> None:
    place = place_of(SPELLED[kind].removeprefix(KEYS.root))
    assert place.kind is kind
    if place.fingerprint:
        assert (place.fingerprint, place.generation) == ("ab" * 32, 12)
    if SPELLED[kind].startswith((ATTEMPT.folder, ATTEMPT.claim)):
        assert place.number == 3
    if "fbdwm3qmlb" in SPELLED[kind] and kind is not Kind.PIN:
        assert place.run == RUN.run


@pytest.mark.parametrize(
    "key",
    ["runs/x/run.json", "jobs/zz/000001/result", "jobs/" + "a" * 64 + "/1/result", "final", "names/", "code/x/diff"],
)
def test_anything_else_is_unknown(key: str) -> None:
    assert place_of(key).kind is Kind.UNKNOWN


def test_bytes_are_counted_by_what_people_ask_for() -> None:
    assert {sort_of(kind) for kind in Kind} == {"artifacts", "logs", "code", "records"}
    assert [sort_of(kind) for kind in (Kind.DATA, Kind.LOG, Kind.RESULT)] == ["artifacts", "logs", "records"]
