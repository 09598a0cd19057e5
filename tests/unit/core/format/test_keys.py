"""Keys: what a coordinator may find by an order, and names that must not collide."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dstack.core.format.key_rules import check_key, check_prefix
from dstack.core.format.keys import MAX_INVENTORY, ProjectKeys, probe_folder
from dstack.model import Fingerprint, RunId

KEYS = ProjectKeys.of("p")
JOB = KEYS.job(Fingerprint("ab" * 32), 12)
RUN = RunId("8204478254473-fbdwm3qmlb")
PEOPLE = st.text(min_size=1, max_size=20)
NUMBERS = st.integers(1, 999_999)
OFFSETS = st.integers(0, 2**63 - 1)


@given(NUMBERS, NUMBERS)
def test_numbered_keys_sort_as_their_numbers(one: int, other: int) -> None:
    for key_of in (JOB.user, lambda number: JOB.attempt(number).claim, JOB.attempt(1).owner):
        assert (key_of(one) < key_of(other)) == (one < other)


@given(OFFSETS, OFFSETS)
def test_pieces_of_a_log_sort_as_their_offsets(one: int, other: int) -> None:
    attempt = JOB.attempt(1)
    assert (attempt.log(one) < attempt.log(other)) == (one < other)


@given(st.integers(1, MAX_INVENTORY), st.integers(1, MAX_INVENTORY))
def test_a_list_of_shared_inventories_begins_with_the_latest(one: int, other: int) -> None:
    assert (KEYS.inventory(one) < KEYS.inventory(other)) == (one > other)


@given(PEOPLE, PEOPLE, PEOPLE, PEOPLE)
def test_the_runs_of_two_people_never_share_a_folder(user: str, machine: str, other: str, other_machine: str) -> None:
    mine, theirs = KEYS.runs_of(user, machine), KEYS.runs_of(other, other_machine)
    assert check_prefix(mine) == mine
    same = (user.encode("utf-8", "replace"), machine.encode("utf-8", "replace")) == (
        other.encode("utf-8", "replace"),
        other_machine.encode("utf-8", "replace"),
    )
    # Names that are cut may meet: no account is called so.
    cut = any(len(part.encode("utf-8", "replace")) * 3 > 90 for part in (user, machine, other, other_machine))
    assert same or cut or not mine.startswith(theirs)


@given(st.text(max_size=300), st.text(max_size=300))
def test_whatever_a_person_is_called_the_key_of_a_run_of_theirs_is_a_key(user: str, machine: str) -> None:
    key = KEYS.run_of(user, machine, RUN)
    assert check_key(key) == key


def test_everything_of_a_generation_lies_in_its_folder_and_everything_of_an_attempt_but_its_claim_in_its_own() -> None:
    attempt = JOB.attempt(3)
    generation = (
        JOB.why,
        JOB.want(RUN),
        JOB.pin(RUN),
        JOB.user(1),
        JOB.result,
        JOB.tomb,
        attempt.claim,
        attempt.folder,
    )
    assert all(key.startswith(JOB.folder) for key in (*generation, attempt.folder))
    own = (attempt.owner(1), attempt.started, attempt.log(0), attempt.pack("x"), attempt.manifest, attempt.end)
    assert all(key.startswith(attempt.folder) for key in (*own, attempt.gone))
    assert not attempt.claim.startswith(attempt.folder)
    assert attempt.claim.startswith(JOB.claims)


def test_trials_of_a_bucket_lie_beside_all_projects() -> None:
    assert not probe_folder("n").startswith(KEYS.root)
    assert check_prefix(probe_folder("n")) == "probe/n/"
