"""What goes by a policy, and what never does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dstack.core.retention import PrunePolicy, StoredGeneration, choose

DAY = 86400.0
NOW = 1000 * DAY


def kept(
    key: str, days: float, *, workflow: str = "train", size: int = 10, result: bool = True, **more: bool
) -> StoredGeneration:
    then = NOW - days * DAY
    return StoredGeneration(key=key, workflow=workflow, bytes=size, modified=then, made=then if result else 0.0, **more)


def gone(found: list[StoredGeneration], policy: PrunePolicy) -> list[str]:
    return [each.key for each in choose(found, policy, total=sum(each.bytes for each in found), now=NOW)]


FOUR = [kept("d", 1), kept("c", 10), kept("b", 40), kept("a", 50)]


def test_without_a_policy_nothing_goes() -> None:
    assert gone(FOUR, PrunePolicy()) == []


def test_what_is_older_goes_the_oldest_first() -> None:
    assert gone(FOUR, PrunePolicy(older_than=30 * DAY)) == ["a", "b"]


def test_the_newest_of_each_workflow_stay_whatever_their_age() -> None:
    other = [kept("x", 90, workflow="prepare"), kept("y", 95, workflow="prepare")]
    assert gone([*FOUR, *other], PrunePolicy(keep=1)) == ["y", "a", "b", "c"]
    assert gone([*FOUR, *other], PrunePolicy(keep=1, older_than=45 * DAY)) == ["y", "a"]
    assert gone(FOUR, PrunePolicy(keep=0)) == ["a", "b", "c", "d"]


def test_failures_since_the_last_kept_result_stay_with_it() -> None:
    failures = [kept("f1", 0.5, result=False), kept("f2", 20, result=False)]
    assert gone([*FOUR, *failures], PrunePolicy(keep=1)) == ["a", "b", "f2", "c"]
    assert gone(failures, PrunePolicy(keep=1)) == []


def test_the_oldest_go_until_the_rest_fits() -> None:
    assert gone(FOUR, PrunePolicy(max_size=25)) == ["a", "b"]
    assert gone(FOUR, PrunePolicy(max_size=40)) == []
    assert gone(FOUR, PrunePolicy(max_size=25, keep=3)) == ["a"]
    assert gone(FOUR, PrunePolicy(max_size=35, older_than=30 * DAY)) == ["a", "b"]


def test_what_is_used_or_tagged_stays() -> None:
    found = [kept("a", 90, used=True), kept("b", 90, tagged=True), kept("c", 90)]
    for policy in (
        PrunePolicy(older_than=1.0),
        PrunePolicy(max_size=0),
        PrunePolicy(keep=0),
        PrunePolicy(untagged=True),
    ):
        assert gone(found, policy) == ["c"]


@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 50), st.booleans(), st.booleans()), max_size=12),
    st.none() | st.integers(0, 100),
    st.none() | st.integers(0, 4),
    st.none() | st.integers(0, 300),
    st.booleans(),
)
def test_no_policy_takes_what_it_must_not(
    drawn: list[tuple[int, int, bool, bool]], age: int | None, keep: int | None, size: int | None, untagged: bool
) -> None:
    found = [
        kept(f"k{i}", days, size=bytes_, used=used, tagged=tag) for i, (days, bytes_, used, tag) in enumerate(drawn)
    ]
    policy = PrunePolicy(older_than=age * DAY if age is not None else None, keep=keep, max_size=size, untagged=untagged)
    going = set(gone(found, policy))
    assert not going & {each.key for each in found if each.used or each.tagged}
    if keep is not None:
        newest = sorted(found, key=lambda each: (each.made, each.key), reverse=True)[:keep]
        assert not going & {each.key for each in newest}
    if size is not None and going:
        left = sum(each.bytes for each in found if each.key not in going)
        young = [each for each in found if each.key in going and (age is None or NOW - each.modified <= age * DAY)]
        assert all(left + each.bytes > size for each in young[-1:] if each.bytes) or left <= size or not young
