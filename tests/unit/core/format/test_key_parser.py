"""Every key that `keys.py` spells is found again by `parse_key`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.core.format.key_parser import (
    PROJECT_FOLDERS,
    KeyKind,
    attempt_in,
    inventory_number,
    kind_of,
    log_offset,
    numbers,
    parse_key,
    sort_of,
    takes_attempt,
)
from dstack.core.format.keys import ProjectKeys
from dstack.model import Fingerprint, RunId, RunName, WorkflowName

KEYS = ProjectKeys.of("p")
RUN = KEYS.run(RunId("8204478254473-fbdwm3qmlb"))
JOB = KEYS.job(Fingerprint("ab" * 32), 12)
ATTEMPT = JOB.attempt(3)
SPELLED = {
    KeyKind.NAME: KEYS.name(RunName("calm-otter-7")),
    KeyKind.RUN: RUN.record,
    KeyKind.STOP: RUN.stop(None),
    KeyKind.OUTCOME: RUN.job(WorkflowName("train")),
    KeyKind.FINAL: RUN.final,
    KeyKind.WHY: JOB.why,
    KeyKind.WANT: JOB.want(RUN.run),
    KeyKind.PIN: JOB.pin(RUN.run),
    KeyKind.USER: JOB.user(7),
    KeyKind.TOMB: JOB.tomb,
    KeyKind.CLAIM: ATTEMPT.claim,
    KeyKind.OWNER: ATTEMPT.owner(1),
    KeyKind.STARTED: ATTEMPT.started,
    KeyKind.LOG: ATTEMPT.log(4096),
    KeyKind.DATA: ATTEMPT.pack("cd" * 32),
    KeyKind.MANIFEST: ATTEMPT.manifest,
    KeyKind.END: ATTEMPT.end,
    KeyKind.GONE: ATTEMPT.gone,
    KeyKind.RESULT: JOB.result,
    KeyKind.HEARTBEAT: KEYS.heartbeat("0f" * 16),
    KeyKind.PRESENCE: RUN.coordinator("0f" * 16),
    KeyKind.PERSON: KEYS.run_of("alice", "her laptop", RUN.run),
    KeyKind.INVENTORY: KEYS.inventory(2),
    KeyKind.DIFF: KEYS.diff("e" * 40),
    KeyKind.FILES: KEYS.files("f" * 64),
}


def test_every_kind_has_a_key_here() -> None:
    assert set(KeyKind) - set(SPELLED) == {KeyKind.TAG, KeyKind.UNKNOWN}


@pytest.mark.parametrize("kind", SPELLED, ids=lambda kind: kind.name)
def test_a_key_is_found_again_with_its_parts(kind: KeyKind) -> None:
    parsed = parse_key(SPELLED[kind].removeprefix(KEYS.root))
    assert parsed.kind is kind
    if parsed.fingerprint:
        assert (parsed.fingerprint, parsed.generation) == ("ab" * 32, 12)
    if SPELLED[kind].startswith((ATTEMPT.folder, ATTEMPT.claim)):
        assert parsed.number == 3
    if "fbdwm3qmlb" in SPELLED[kind] and kind is not KeyKind.PIN:
        assert parsed.run == RUN.run


@pytest.mark.parametrize(
    "key",
    ["runs/x/run.json", "jobs/zz/000001/result", "jobs/" + "a" * 64 + "/1/result", "final", "names/", "code/x/diff"],
)
def test_anything_else_is_unknown(key: str) -> None:
    assert parse_key(key).kind is KeyKind.UNKNOWN


def test_bytes_are_counted_by_what_people_ask_for() -> None:
    assert {sort_of(kind) for kind in KeyKind} == {"artifacts", "logs", "code", "records"}
    assert [sort_of(kind) for kind in (KeyKind.DATA, KeyKind.LOG, KeyKind.RESULT)] == ["artifacts", "logs", "records"]


@given(st.text("abcdef/0123456789-.jobsclaimwr", max_size=60))
def test_no_key_raises(key: str) -> None:
    assert parse_key(key).kind in KeyKind
    assert attempt_in(KEYS, f"{KEYS.root}{key}") is None


def test_a_key_of_another_project_is_unknown() -> None:
    assert kind_of(KEYS, JOB.result) is KeyKind.RESULT
    assert kind_of(ProjectKeys.of("other"), JOB.result) is KeyKind.UNKNOWN


@given(st.integers(1, 999_999), st.integers(1, 999_999))
def test_an_attempt_is_found_by_its_folder(generation: int, number: int) -> None:
    attempt = KEYS.job(Fingerprint("ab" * 32), generation).attempt(number)
    assert attempt_in(KEYS, attempt.folder) == attempt
    assert attempt_in(ProjectKeys.of("other"), attempt.folder) is None
    assert attempt_in(KEYS, attempt.manifest) is None


@given(st.integers(0, 2**63 - 1), st.integers(1, 999_999))
def test_numbers_in_keys_are_read_as_they_were_written(offset: int, number: int) -> None:
    assert log_offset(ATTEMPT.log(offset)) == offset
    assert inventory_number(KEYS.inventory(number).removeprefix(KEYS.hosts)) == number


def test_a_name_that_is_no_number_is_no_inventory() -> None:
    assert inventory_number("99999٣") is None
    assert inventory_number("x") is None


def test_a_claim_and_an_adoption_take_an_attempt_and_nothing_else_does() -> None:
    assert {kind for kind, key in SPELLED.items() if takes_attempt(key)} == {KeyKind.CLAIM, KeyKind.OWNER}


def test_every_key_lies_in_one_of_the_folders_that_fsck_knows() -> None:
    assert {key.removeprefix(KEYS.root).partition("/")[0] + "/" for key in SPELLED.values()} == PROJECT_FOLDERS - {
        "tags/"
    }


def test_numbers_are_read_from_names_and_whole_keys() -> None:
    assert numbers(["000010/", "x/claim/000002", "000001"]) == [1, 2, 10]


@given(st.lists(st.text(max_size=8) | st.sampled_from(["²²²²²²", "٣٣٣٣٣٣", "9" * 5000, "-00001", "00001", "000003"])))
def test_whatever_a_list_names_nothing_is_raised(names: list[str]) -> None:
    assert all(0 <= number < 10**6 for number in numbers(names))
