"""What `plain` writes, `build` reads back; what does not fit is named, whoever wrote it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dstack.core.format.codec import build, plain
from dstack.errors import BucketError
from dstack.model import Entry, EntryKind, Gpu, JobSpec, Position, Resources, RunPlan, Workflow, WorkflowName
from tests.support.records.any_value import JSON, any_value


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    number: int
    weight: float = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    name: WorkflowName
    leaves: tuple[Leaf, ...]
    by_name: Mapping[str, Leaf] = field(default_factory=dict)
    anything: Mapping[str, Any] = field(default_factory=dict)
    kind: EntryKind = EntryKind.FILE
    best: Leaf | None = None
    flag: bool = False


@pytest.mark.parametrize("cls", [Tree, Workflow, JobSpec, RunPlan, Resources, Entry, Position])
def test_any_value_survives_the_way_through_json(cls: type[Any]) -> None:
    @settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
    @given(any_value(cls))
    def check(value: Any) -> None:
        assert build(cls, json.loads(json.dumps(plain(value))), "key") == value

    check()


@given(JSON)
def test_foreign_data_never_raises_anything_but_a_bucket_error(data: Any) -> None:
    for cls in (Tree, JobSpec, Workflow):
        try:
            build(cls, data, "some/key")
        except BucketError as error:
            message = str(error)
        else:
            continue
        assert "some/key" in message


@given(JSON, st.sampled_from(["name", "leaves", "by_name", "anything", "kind", "best", "flag"]))
def test_a_foreign_field_is_taken_in_its_own_type_or_named(data: Any, name: str) -> None:
    fields = {"name": "n", "leaves": [{"number": 1}], name: data}
    try:
        value = build(Tree, fields, "key")
    except BucketError as error:
        message = str(error)
    else:
        assert build(Tree, json.loads(json.dumps(plain(value))), "key") == value
        return
    assert f"key, field {name}" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"leaves": [{"number": 1}, {"number": "2"}]}, "k, field leaves[1].number: expected a whole number, found '2'"),
        ({"leaves": [{"number": True}]}, "k, field leaves[0].number: expected a whole number, found True"),
        ({"leaves": [{"number": 1.0}]}, "k, field leaves[0].number: expected a whole number, found 1.0"),
        ({"leaves": {}}, "k, field leaves: expected a list, found an object"),
        ({"leaves": "ab"}, "k, field leaves: expected a list, found 'ab'"),
        (
            {"leaves": [{"number": 1, "weight": 10**400}]},
            "k, field leaves[0].weight: expected a finite number, found inf",
        ),
        ({"by_name": {"x": {}}}, "k, field by_name.'x'.number: it is missing"),
        ({"kind": "door"}, "k, field kind: expected one of file, link, folder, found 'door'"),
        ({"kind": []}, "k, field kind: expected one of file, link, folder, found a list"),
        ({"flag": 1}, "k, field flag: expected true or false, found 1"),
        ({"name": None}, "k, field name: expected a string, found None"),
        ({"best": 3}, "k, field best: expected an object, found 3"),
    ],
)
def test_the_message_names_the_field_and_both_types(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BucketError) as caught:
        build(Tree, {"name": "n", "leaves": [], **change}, "k")
    assert str(caught.value) == message
    assert caught.value.hint


def test_absent_fields_take_their_defaults_and_unknown_ones_are_ignored() -> None:
    tree = build(Tree, {"name": "n", "leaves": [], "future": {"x": 1}}, "k")
    assert tree == Tree(name=WorkflowName("n"), leaves=())


def test_a_required_field_that_is_absent_is_named() -> None:
    with pytest.raises(BucketError, match="k, field leaves: it is missing"):
        build(Tree, {"name": "n"}, "k")


def test_a_whole_number_is_fine_where_a_float_is_wanted() -> None:
    leaf = build(Leaf, {"number": 1, "weight": 2}, "k")
    assert type(leaf.weight) is float
    assert leaf.weight == 2


def test_defaults_are_written_out() -> None:
    assert plain(Gpu(count=1)) == {"count": 1, "name": None, "memory": None}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_cannot_say_is_refused_when_written_and_when_read(number: float) -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        plain(Leaf(number=1, weight=number))
    with pytest.raises(BucketError, match="finite"):
        build(Leaf, {"number": 1, "weight": number}, "k")


@pytest.mark.parametrize("value", [object(), b"bytes", {1: "x"}, {1, 2}])
def test_a_value_without_a_json_form_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="record"):
        plain(value)


def test_a_hint_that_records_do_not_use_is_a_bug_and_said_at_once() -> None:
    @dataclass(frozen=True)
    class Odd:
        items: set[int]

    with pytest.raises(TypeError, match="not a type of a record"):
        build(Odd, {"items": []}, "k")
