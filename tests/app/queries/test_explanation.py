"""`dstack why` names the ingredient that differs, and no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dstack.adapters.bucket.folder import FolderBucket
from dstack.app.queries.explanation import Explainer, Explanation
from dstack.app.queries.runs import run_view
from dstack.core.artifacts import manifests
from dstack.core.format.records import Outcome, RunRecord, Started, Tomb, pack
from dstack.core.lifecycle import GOOD_STATES
from dstack.errors import DamagedObjectError
from dstack.model import Fingerprint, JobSpec, Manifest, WorkflowName
from tests.support.records.specs import spec
from tests.support.records.story import Story


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(FolderBucket(tmp_path / "bucket"))


def done(story: Story, name: str, job: JobSpec, status: str = "succeeded", **changes: Any) -> RunRecord:
    record = story.run(name, job)
    outcome = story.outcome(record, job, status, **changes)
    story.final(record, "succeeded" if status == "reused" else status, left(story, outcome))
    return record


def left(story: Story, outcome: Outcome) -> Outcome:
    """The outcome, with the manifest that a good one has; several of these runs may be of one job."""
    if outcome.status in GOOD_STATES:
        keys = story.keys.job(Fingerprint(outcome.fingerprint), outcome.generation)
        body = manifests.encode(Manifest(entries=(), partial=False))
        story.bucket.create(keys.attempt(outcome.attempt).manifest, body)
    return outcome


def why(story: Story, record: RunRecord, workflow: str = "train") -> Explanation:
    view = run_view(story.bucket, story.keys, record)
    return Explainer(story.bucket, story.keys, record, view).explain(WorkflowName(workflow))


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ({"variables": {"lr": "0.1"}}, {"variables": {"lr": "0.2"}}, "variable lr: 0.1 → 0.2"),
        ({"variables": {}}, {"variables": {"lr": "0.2"}}, "variable lr: not set → 0.2"),
        ({"image": None}, {"image": "python:3.11"}, "image: none → python:3.11"),
        ({"script": "a"}, {"script": "b"}, "the commands changed"),
        ({"env": {"A": "1"}}, {"env": {"A": "2"}}, "env A: 1 → 2"),
    ],
)
def test_the_one_thing_that_differs_is_named(story: Story, old: dict[str, Any], new: dict[str, Any], line: str) -> None:
    done(story, "a-1", spec("train", **old))
    told = why(story, done(story, "b-2", spec("train", **new)))
    assert told.against == "a-1"
    assert told.differences == (line,)


def test_files_are_named(story: Story) -> None:
    before = {"same.py": "100644 1", "train.py": "100644 2", "old.py": "100644 3"}
    after = {"same.py": "100644 1", "train.py": "100644 9", "new.py": "100644 4"}
    for digest, files in (("one", before), ("two", after)):
        story.put(story.keys.files(digest), json.dumps(files).encode())
    done(story, "a-1", spec("train", code="one"))
    told = why(story, done(story, "b-2", spec("train", code="two")))
    assert set(told.differences) == {"file train.py changed", "file old.py removed", "file new.py added"}


def test_without_the_lists_of_files_the_code_is_named(story: Story) -> None:
    done(story, "a-1", spec("train", code="one"))
    assert why(story, done(story, "b-2", spec("train", code="two"))).differences == ("the code changed",)


def test_an_input_whose_content_changed_is_named(story: Story) -> None:
    prepare, train = spec("prepare"), spec("train", ["prepare"])
    last = None
    for name, digest in (("a-1", "x"), ("b-2", "y")):
        last = story.run(name, prepare, train)
        story.final(
            last,
            "succeeded",
            left(story, story.outcome(last, prepare, digest=digest)),
            left(story, story.outcome(last, train, inputs={"prepare": digest})),
        )
    assert last is not None
    assert why(story, last).differences == ("the content of input prepare changed",)


def test_a_reused_job_says_from_where(story: Story) -> None:
    job = spec("train")
    done(story, "a-1", job)
    told = why(story, done(story, "b-2", job, "reused", reused_from="a-1"))
    assert told.verdict == "reused from a-1, because nothing differs"


def test_the_first_job_of_a_workflow_says_so(story: Story) -> None:
    done(story, "a-1", spec("other"))
    assert "no earlier job" in why(story, done(story, "b-2", spec("train"))).verdict


def test_the_nearest_job_counts_and_of_several_the_latest(story: Story) -> None:
    done(story, "a-1", spec("train", variables={"lr": "1", "n": "1"}))
    done(story, "b-2", spec("train", variables={"lr": "2", "n": "2"}))
    told = why(story, done(story, "c-3", spec("train", variables={"lr": "1", "n": "3"})))
    assert (told.against, told.differences) == ("a-1", ("variable n: 1 → 3",))
    told = why(story, done(story, "d-4", spec("train", variables={"lr": "9", "n": "3"})))
    assert told.against == "c-3"


def test_later_runs_do_not_count(story: Story) -> None:
    first = done(story, "a-1", spec("train", variables={"lr": "1"}))
    done(story, "b-2", spec("train", variables={"lr": "2"}))
    assert "no earlier job" in why(story, first).verdict


def test_a_failure_is_no_result(story: Story) -> None:
    job = spec("train")
    done(story, "a-1", job, "failed")
    assert "only success is reused" in why(story, done(story, "b-2", job)).verdict


def test_a_rerun_says_who_asked(story: Story) -> None:
    job = spec("train")
    done(story, "a-1", job)
    again = story.run("b-2", job, rerun=["train"])
    story.reopened(again, job, 2, "alice asked for it to run again")
    story.final(again, "succeeded", left(story, story.outcome(again, job, generation=2)))
    assert why(story, again).verdict == "ran again: alice asked for it to run again"


def test_a_job_that_has_not_begun_did_not_run(story: Story) -> None:
    job = spec("train", variables={"lr": "0.2"})
    first = story.run("a-0", job)
    assert why(story, first).verdict == "queued: will run, because there is no earlier job of this workflow"
    done(story, "a-1", spec("train", variables={"lr": "0.1"}))
    record = story.run("b-2", job)
    assert why(story, record).verdict == "queued: will run, because this differs from a-1:"
    story.attempt(record, job)
    assert why(story, record).verdict == "placed: will run, because this differs from a-1:"
    story.stop(record)
    story.outcome(record, job, "stopped", attempt=0, generation=0, host="", reason="stopped by bob")
    assert why(story, record) == Explanation(verdict="did not run (stopped: stopped by bob)")


def test_a_job_that_runs_is_not_said_to_have_run(story: Story) -> None:
    record = story.run("a-1", spec("train"))
    attempt = story.attempt(record, spec("train"))
    story.put(attempt.started, pack(Started(nonce="n1", at=1.0)))
    assert why(story, record).verdict == "runs, because there is no earlier job of this workflow"


def test_of_a_lost_job_nobody_knows_whether_it_ran(story: Story) -> None:
    job = spec("train")
    record = done(story, "a-1", job, "lost")
    assert why(story, record).verdict == "may have run, because there is no earlier job of this workflow"


def test_a_failure_to_begin_is_no_run(story: Story) -> None:
    record = done(story, "a-1", spec("train"), "failed", reason="it never started on gpu-1")
    assert why(story, record).verdict == "did not run (failed: it never started on gpu-1)"


def test_a_job_that_waits_says_for_what(story: Story) -> None:
    record = story.run("a-1", spec("prepare"), spec("train", ["prepare"]))
    assert why(story, record).verdict == "waiting: waits for prepare"


def test_a_job_that_succeeded_and_whose_manifest_is_gone_is_an_error_unless_it_was_pruned(story: Story) -> None:
    job = spec("train")
    record = done(story, "a-1", job)
    keys = story.keys.job(story.fingerprint(job), 1)
    story.bucket.delete(keys.attempt(1).manifest)
    with pytest.raises(DamagedObjectError, match="manifest is gone") as caught:
        why(story, record)
    assert caught.value.exit_code == 6
    assert caught.value.hint == "make it anew: dstack run train --rerun"
    story.put(keys.tomb, pack(Tomb(nonce="n", user="alice")))
    assert "no earlier job" in why(story, record).verdict


def test_a_damaged_run_before_it_is_not_compared(story: Story) -> None:
    first = done(story, "a-1", spec("train", variables={"lr": "0"}))
    story.bucket.put(story.keys.run(first.id).final, b"{")
    assert "no earlier job" in why(story, done(story, "b-2", spec("train"))).verdict
