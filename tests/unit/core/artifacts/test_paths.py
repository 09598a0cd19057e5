"""Paths and links of artifacts: one corpus for both sides of the wire, whose rules are written twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.core.artifacts import manifests, paths
from dstack.runner.base import safe_paths
from dstack.wire import Refusal
from tests.support.faults.hostile_paths import INSIDE, LINKS, PATHS, TAKEN


def test_there_are_a_hundred_and_fifty_hostile_names() -> None:
    assert len(set(PATHS)) + len(set(LINKS)) >= 150


@pytest.mark.parametrize("path", PATHS, ids=range(len(PATHS)))
def test_hostile_paths_are_refused_by_both_sides(path: str) -> None:
    with pytest.raises(paths.UnsafePathError):
        paths.parts_of(path)
    with pytest.raises(Refusal):
        safe_paths.split_path(path, "inputs")
    with pytest.raises(manifests.BadManifestError):
        manifests.entry_from_wire({"path": path, "kind": "folder", "mode": 0o755})


@pytest.mark.parametrize("path", TAKEN, ids=range(len(TAKEN)))
def test_odd_paths_are_taken_by_both_sides(path: str) -> None:
    assert list(paths.parts_of(path)) == safe_paths.split_path(path, "inputs")
    assert b"/".join(paths.parts_of(path)) == paths.path_bytes(path)


@given(st.text(st.sampled_from("./abg\u200c~1 it\0\udcff\ud800"), max_size=12))
def test_both_sides_agree_on_every_path(path: str) -> None:
    try:
        here: object = list(paths.parts_of(path))
    except paths.UnsafePathError:
        here = None
    try:
        there: object = safe_paths.split_path(path, "inputs")
    except Refusal:
        there = None
    assert here == there


@pytest.mark.parametrize(("path", "target"), LINKS, ids=range(len(LINKS)))
def test_links_that_may_lead_out_are_refused_by_both_sides(path: str, target: str) -> None:
    with pytest.raises(manifests.BadManifestError):
        manifests.entry_from_wire({"path": path, "kind": "link", "mode": 0o777, "target": target})
    try:
        data = target.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return
    if safe_paths.path_text(data) == target:
        assert not safe_paths.link_is_inside(safe_paths.split_path(path, "inputs"), data)


@pytest.mark.parametrize(("path", "target"), INSIDE)
def test_links_that_stay_are_taken_by_both_sides(path: str, target: str) -> None:
    assert manifests.entry_from_wire({"path": path, "kind": "link", "mode": 0o777, "target": target}).target == target
    assert safe_paths.link_is_inside(safe_paths.split_path(path, "inputs"), target.encode())


def test_both_sides_have_the_same_limits() -> None:
    ours = (paths.MAX_ARTIFACT_PART_BYTES, paths.MAX_ARTIFACT_PATH_BYTES, paths.MAX_ARTIFACT_PATH_PARTS)
    assert ours == (safe_paths.MAX_PART, safe_paths.MAX_PATH, safe_paths.MAX_DEPTH)


@given(st.text())
def test_a_message_shows_no_control_characters_of_a_path(path: str) -> None:
    assert paths.path_text(path).isprintable()
    assert len(paths.path_text(path)) <= 2100
