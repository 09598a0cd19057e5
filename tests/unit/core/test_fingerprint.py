"""A fingerprint is equal when and only when everything is equal on which the result of a job depends."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dstack.core.fingerprint import Ingredients, code_digest, differences, fingerprint, ingredients
from dstack.model import CodeFile, JobSpec, Resources, Retry
from tests.support.records.specs import spec

WORDS = st.text("ab=,\n\0", max_size=4)
NAMES = st.text("ab", min_size=1, max_size=2)
MAPS = st.dictionaries(NAMES, WORDS, max_size=2)
LISTS = st.lists(NAMES, max_size=2, unique=True).map(lambda names: tuple(sorted(names)))
INGREDIENTS = st.builds(
    Ingredients,
    script=WORDS,
    image=st.none() | WORDS,
    env=MAPS,
    env_from_caller=LISTS,
    secrets=LISTS,
    variables=MAPS,
    artifacts=LISTS,
    code=WORDS,
    inputs=MAPS,
)
FULL = spec(
    script="train",
    image="python:3.11",
    env={"A": "1"},
    env_from_caller=("HOME", "USER"),
    secrets=("TOKEN", "KEY"),
    variables={"epochs": "3"},
    artifacts=("model", "log"),
    code="c0de",
)
INPUTS = {"prepare": "d1"}
BEFORE = ingredients(FULL, INPUTS)


@given(INGREDIENTS, INGREDIENTS)
def test_two_jobs_have_one_fingerprint_when_and_only_when_all_ingredients_are_equal(
    one: Ingredients, other: Ingredients
) -> None:
    assert (fingerprint(one) == fingerprint(other)) == (one == other)


@given(INGREDIENTS, st.data())
def test_each_ingredient_counts(parts: Ingredients, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([each.name for each in fields(Ingredients)]))
    other = getattr(data.draw(INGREDIENTS), name)
    assume(other != getattr(parts, name))
    changed = replace(parts, **{name: other})
    assert fingerprint(changed) != fingerprint(parts)
    assert differences(parts, changed), "a changed fingerprint has a reason to show"


def test_the_fingerprint_of_a_job_never_changes_between_versions() -> None:
    """Results of earlier versions are found by it: another value here takes every result away from its users."""
    assert fingerprint(BEFORE) == "0d2c315370a3d5f870eff99478a5013a00cdd27404ec449b4e2aa9206d7984f3"


SAME = [
    {"secrets": ("KEY", "TOKEN")},
    {"env_from_caller": ("USER", "HOME")},
    {"artifacts": ("log", "model")},
    {"arguments": ("x",)},
    {"environment": {"epochs": "3"}},
    {"resources": Resources(cpu=4)},
    {"retry": Retry(attempts=3, on=("failed",))},
    {"max_duration": 60},
    {"ports": (8080,)},
    {"reuse": False},
    {"priority": 5},
]


@pytest.mark.parametrize("change", SAME, ids=lambda change: next(iter(change)))
def test_what_cannot_change_a_result_counts_for_nothing(change: dict[str, object]) -> None:
    assert fingerprint(ingredients(replace(FULL, **change), INPUTS)) == fingerprint(BEFORE)  # type: ignore[arg-type]


def test_a_job_has_another_fingerprint_with_other_inputs() -> None:
    assert fingerprint(ingredients(FULL, {"prepare": "d2"})) != fingerprint(BEFORE)
    assert fingerprint(ingredients(FULL, {"other": "d1"})) != fingerprint(BEFORE)


FILES = (CodeFile(path="a", mode="100644", blob="1" * 40), CodeFile(path="b", mode="100755", blob="2" * 40))


def test_the_digest_of_code_is_of_path_mode_and_content_in_any_order() -> None:
    assert code_digest(FILES) == code_digest(FILES[::-1])
    for change in ({"path": "c"}, {"mode": "100755"}, {"blob": "3" * 40}):
        assert code_digest((replace(FILES[0], **change), FILES[1])) != code_digest(FILES)
    assert code_digest(FILES[:1]) != code_digest(FILES)


def told(change: dict[str, object], **more: dict[str, str]) -> tuple[str, ...]:
    changed: JobSpec = replace(FULL, **change)  # type: ignore[arg-type]
    return differences(BEFORE, ingredients(changed, INPUTS), **more)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"variables": {"epochs": "4"}}, "variable epochs: 3 → 4"),
        ({"variables": {}}, "variable epochs: 3 → not set"),
        ({"script": "x"}, "the commands changed"),
        ({"image": None}, "image: python:3.11 → none"),
        ({"env": {"A": "1", "B": ""}}, "env B: not set → "),
        ({"secrets": ()}, "the names of secrets or inherited variables changed"),
        ({"artifacts": ()}, "artifacts: log, model → none"),
        ({"code": "other"}, "the code changed"),
    ],
)
def test_a_difference_is_told_in_words(change: dict[str, object], text: str) -> None:
    assert told(change) == (text,)


def test_equal_jobs_do_not_differ() -> None:
    assert differences(BEFORE, BEFORE) == ()


def test_changed_code_is_told_by_its_files_where_both_lists_are_there() -> None:
    old, new = {"a": "100644 1", "b": "100644 2"}, {"a": "100644 3", "c": "100644 2"}
    files = {"old_files": old, "new_files": new}
    assert told({"code": "other"}, **files) == ("file a changed", "file b removed", "file c added")
    assert told({"code": "other"}, old_files=old) == ("the code changed",)
    assert told({"code": "other"}, old_files=old, new_files=old) == ("the code changed",)
    assert told({}, **files) == ()


def test_the_most_telling_difference_comes_first() -> None:
    changed = ingredients(replace(FULL, script="x", code="y", variables={}), {"prepare": "d2"})
    kinds = [each.split(" ")[-1] if "set" not in each else "variable" for each in differences(BEFORE, changed)]
    assert kinds == ["changed", "variable", "changed", "changed"]
    assert differences(BEFORE, changed)[0] == "the content of input prepare changed"
