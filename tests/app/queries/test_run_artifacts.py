"""The artifacts of a run: of which jobs, and what of them is pruned or damaged."""

from __future__ import annotations

import pytest

from dstack.app.queries.run_artifacts import artifacts_of
from dstack.core.artifacts import manifests
from dstack.core.format.records import RunRecord, Tomb, pack
from dstack.errors import DamagedObjectError, UsageError
from dstack.model import Entry, EntryKind, Manifest
from tests.support.buckets.memory import MemoryBucket
from tests.support.records.specs import spec
from tests.support.records.story import Story

TRAIN, REPORT = spec("train"), spec("report")


@pytest.fixture
def story() -> Story:
    return Story(MemoryBucket())


def found(story: Story, record: RunRecord, workflow: str | None = None) -> tuple[list[str], list[str], list[str]]:
    """The workflows with artifacts, what the user is told, and what is damaged."""
    damages: list[DamagedObjectError] = []
    told: list[str] = []
    artifacts = artifacts_of(story.bucket, story.keys, record, workflow, damages=damages, notify=told.append)
    return [each.job.workflow for each in artifacts], told, [str(error.hint) for error in damages]


def test_kept_artifacts_of_a_failed_job_are_found_and_a_job_without_has_none(story: Story) -> None:
    record = story.run("one", TRAIN, REPORT)
    story.outcome(record, TRAIN, "failed")
    story.outcome(record, REPORT, "failed")
    attempt = story.keys.job(story.fingerprint(TRAIN), 1).attempt(1)
    entry = Entry(path="logs", kind=EntryKind.FOLDER, mode=0o755)
    story.put(attempt.manifest, manifests.encode(Manifest(entries=(entry,), partial=True)))
    assert found(story, record) == (["train"], [], [])
    assert found(story, record, "report") == ([], [], [])


def test_a_result_that_is_gone_is_damage_with_the_command_that_makes_it_anew(story: Story) -> None:
    record = story.run("one", TRAIN)
    story.outcome(record, TRAIN)
    assert found(story, record) == ([], [], ["make it anew: dstack run train --rerun"])


def test_a_pruned_result_is_no_damage_and_the_user_is_told(story: Story) -> None:
    record = story.run("one", TRAIN)
    story.outcome(record, TRAIN)
    story.put(story.keys.job(story.fingerprint(TRAIN), 1).tomb, pack(Tomb(nonce="t", user="bob")))
    assert found(story, record) == ([], ["train: its artifacts were pruned; a run makes them again"], [])


def test_the_artifacts_of_a_job_that_has_not_ended_are_refused_by_name(story: Story) -> None:
    record = story.run("one", TRAIN)
    assert found(story, record) == ([], [], [])
    with pytest.raises(UsageError, match="its artifacts come when it has ended"):
        found(story, record, "train")
