"""What ps and show say, from real records in a real folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from dstack.adapters.bucket.folder import FolderBucket
from dstack.app.queries.coordinators import Presence
from dstack.app.queries.run_lookup import find_run
from dstack.app.queries.run_views import RunView
from dstack.app.queries.runs import attempt_of, job_of, run_ids, run_view, views_of
from dstack.core.format.records import RunRecord, Started, pack, unpack
from dstack.errors import BucketError, NotFoundError
from dstack.model import JobStatus, RunId, RunStatus, WorkflowName
from dstack.ui.jsonout import run_json
from tests.support.records.specs import spec
from tests.support.records.story import Story


class CountingFolder(FolderBucket):
    """The real folder bucket; says what it was asked."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.asked: list[str] = []

    def get(self, key: str) -> bytes | None:
        self.asked.append("get")
        return super().get(key)

    def children(self, prefix: str, *, limit: int | None = None, after: str = "") -> Sequence[str]:
        self.asked.append("list")
        return super().children(prefix, limit=limit, after=after)


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(FolderBucket(tmp_path / "bucket"))


def finish(story: Story, name: str, status: str = "succeeded") -> None:
    job = spec("train")
    record = story.run(name, job)
    story.final(record, status, story.outcome(record, job, status))


def newest(story: Story, limit: int | None = None) -> list[RunView]:
    return list(views_of(story.bucket, story.keys, run_ids(story.bucket, story.keys, limit)))


def test_runs_come_newest_first(story: Story) -> None:
    for name in ("a-1", "b-2", "c-3"):
        finish(story, name)
    assert [view.run for view in newest(story)] == ["c-3", "b-2", "a-1"]
    assert [view.run for view in newest(story, 2)] == ["c-3", "b-2"]


def test_a_page_of_final_runs_costs_one_list_and_one_read_each(tmp_path: Path) -> None:
    bucket = CountingFolder(tmp_path / "bucket")
    story = Story(bucket)
    for number in range(30):
        finish(story, f"run-{number}")
    bucket.asked.clear()
    assert len(newest(story, 10)) == 10
    assert bucket.asked == ["list", *["get"] * 10]


@pytest.mark.parametrize("time_", [1e300, -1e300, 1e12])
def test_times_that_no_clock_can_have_said_are_not_known(story: Story, time_: float) -> None:
    job = spec("train")
    record = story.run("a-1", job)
    body = story.bucket.get(story.keys.run(record.id).record)
    assert body is not None
    story.bucket.put(story.keys.run(record.id).record, pack(replace(unpack(RunRecord, "k", body), submitted=time_)))
    attempt = story.attempt(record, job)
    story.put(attempt.started, pack(Started(nonce="n1", at=time_)))
    for _ in range(2):
        found = find_run(story.bucket, story.keys, record.id)
        look = partial(Presence, story.bucket, story.keys, sure=lambda _: True, now=1_790_000_000.0)
        view = run_view(story.bucket, story.keys, found, look=look)
        assert (view.submitted, view.ended, view.jobs[0].started, view.jobs[0].ended) == (0.0, 0.0, 0.0, 0.0)
        assert "1970-01-01" in run_json(view)
        if view.status is RunStatus.RUNNING:
            asked = replace(found, submitted=time_)
            story.final(asked, "succeeded", story.outcome(asked, job, started=time_, ended=time_))


def test_many_reads_at_once_give_the_same_in_the_same_order(story: Story) -> None:
    for number in range(40):
        finish(story, f"run-{number}")
    runs = run_ids(story.bucket, story.keys)
    one, many = (list(views_of(story.bucket, story.keys, runs, at_once=count)) for count in (1, 16))
    assert [view.run for view in many] == [f"run-{39 - number}" for number in range(40)]
    assert many == one


@pytest.mark.parametrize("part", ["final", "record"])
def test_a_run_whose_record_makes_no_sense_does_not_hide_the_others(story: Story, part: str) -> None:
    for name in ("a-1", "b-2", "c-3"):
        finish(story, name)
    runs = run_ids(story.bucket, story.keys)
    bad = story.keys.run(runs[1])
    if part == "record":
        story.bucket.delete(bad.final)
    fields = json.loads(story.bucket.get(bad.record if part == "record" else bad.final) or b"")
    story.bucket.put(getattr(bad, part), json.dumps({**fields, "submitted": "then", "workflow": 10**30}).encode())
    faults: dict[RunId, BucketError] = {}
    shown = list(views_of(story.bucket, story.keys, runs, faults=faults))
    assert [view.run for view in shown] == ["c-3", "a-1"]
    assert list(faults) == [runs[1]]
    with pytest.raises(BucketError):
        list(views_of(story.bucket, story.keys, runs))


def test_a_run_that_is_being_recorded_is_left_out(story: Story) -> None:
    finish(story, "a-1")
    story.put(f"{story.keys.runs}{10**12:013d}-abcdefghij/stop/_all", b"{}")
    assert [view.run for view in newest(story)] == ["a-1"]


def test_strange_names_among_the_runs_are_ignored(story: Story) -> None:
    finish(story, "a-1")
    story.put(f"{story.keys.runs}..junk/run.json", b"{}")
    assert [view.run for view in newest(story)] == ["a-1"]


def states(story: Story, tell: Callable[[], object]) -> dict[str, str]:
    tell()
    view = newest(story)[0]
    return {job.workflow: job.status.value for job in view.jobs}


def test_a_job_goes_through_its_states_by_what_stands_in_the_bucket(story: Story) -> None:
    prepare, train = spec("prepare"), spec("train", ["prepare"])
    record = story.run("a-1", prepare, train)
    assert states(story, lambda: None) == {"prepare": "queued", "train": "waiting"}
    attempt = story.attempt(record, prepare)
    assert states(story, lambda: None)["prepare"] == "placed"
    assert states(story, lambda: story.put(attempt.started, b"x"))["prepare"] == "running"
    assert states(story, lambda: story.log(attempt, b"hello\n"))["prepare"] == "running"
    assert states(story, lambda: story.stop(record, "prepare"))["prepare"] == "stopping"
    assert states(story, lambda: story.put(attempt.pack("0" * 64), b"x"))["prepare"] == "uploading"
    assert states(story, lambda: story.put(attempt.manifest, b"x"))["prepare"] == "uploading"
    told = states(story, lambda: story.outcome(record, prepare))
    assert told == {"prepare": "succeeded", "train": "queued"}


def test_a_job_behind_a_failure_says_what_it_waits_for(story: Story) -> None:
    prepare, train = spec("prepare"), spec("train", ["prepare"])
    record = story.run("a-1", prepare, train)
    story.outcome(record, prepare, "failed")
    job = job_of(run_view(story.bucket, story.keys, record), "train")
    assert (job.status, job.reason) == (JobStatus.WAITING, "waits for prepare")


def test_the_attempt_of_a_retried_job_is_the_last_one(story: Story) -> None:
    job = spec("train")
    record = story.run("a-1", job)
    story.end(story.attempt(record, job, 1))
    story.attempt(record, job, 2)
    view = job_of(run_view(story.bucket, story.keys, record), "train")
    assert (view.attempt, view.host) == (2, "gpu-2")
    found = attempt_of(story.keys, view)
    assert found is not None
    assert found.number == 2


def test_the_attempt_is_looked_for_in_the_generation_that_the_run_waits_for(story: Story) -> None:
    job = spec("train")
    story.attempt(story.run("a-1", job), job)
    again = story.run("b-2", job, rerun=["train"])
    story.reopened(again, job, 2, "asked")
    attempt = story.attempt(again, job, 1, generation=2)
    story.log(attempt, b"x")
    view = job_of(run_view(story.bucket, story.keys, again), "train")
    assert (view.generation, view.status) == (2, JobStatus.RUNNING)


def test_a_generation_that_another_run_opened_is_not_this_runs(story: Story) -> None:
    job = spec("train")
    record = story.run("a-1", job)
    story.log(story.attempt(record, job), b"x")
    other = story.run("b-2", job, rerun=["train"])
    story.reopened(other, job, 2, "asked")
    story.attempt(other, job, 1, generation=2)
    view = job_of(run_view(story.bucket, story.keys, record), "train")
    assert (view.generation, view.status) == (1, JobStatus.RUNNING)


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (["succeeded", "reused"], RunStatus.SUCCEEDED),
        (["reused", "reused"], RunStatus.SUCCEEDED),
        (["succeeded", "failed"], RunStatus.FAILED),
        (["failed", "stopped"], RunStatus.FAILED),
        (["lost", "stopped"], RunStatus.LOST),
        (["succeeded", "stopped"], RunStatus.STOPPED),
    ],
)
def test_a_run_whose_coordinator_died_before_the_summary_has_a_status(
    story: Story, statuses: list[str], expected: RunStatus
) -> None:
    jobs = [spec("a"), spec("b")]
    record = story.run("a-1", *jobs)
    for job, status in zip(jobs, statuses, strict=True):
        story.outcome(record, job, status)
    assert run_view(story.bucket, story.keys, record).status is expected


def test_a_run_is_found_by_name_and_by_id(story: Story) -> None:
    record = story.run("calm-otter-7", spec("train"))
    assert find_run(story.bucket, story.keys, "calm-otter-7") == record
    assert find_run(story.bucket, story.keys, record.id) == record


@pytest.mark.parametrize("name", ["calm-oter-7", "../../etc/passwd", "", "a/b", "x" * 5000, "\x1b[2J"])
def test_a_run_that_is_not_there_is_told_with_the_nearest_name(story: Story, name: str) -> None:
    story.run("calm-otter-7", spec("train"))
    with pytest.raises(NotFoundError) as caught:
        find_run(story.bucket, story.keys, name)
    assert caught.value.hint
    if name == "calm-oter-7":
        assert caught.value.hint == "did you mean calm-otter-7?"


def test_a_workflow_that_the_run_has_not_is_told_with_the_nearest_name(story: Story) -> None:
    record = story.run("a-1", spec("prepare"), spec("train"))
    with pytest.raises(NotFoundError) as caught:
        job_of(run_view(story.bucket, story.keys, record), "trian")
    assert caught.value.hint == "did you mean train? it has prepare, train"


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"run": 7}', b'{"run": "../../x"}', b"\xff"])
def test_a_damaged_name_is_told_as_what_it_is(story: Story, body: bytes) -> None:
    story.put(f"{story.keys.root}names/calm-otter-7", body)
    with pytest.raises(BucketError):
        find_run(story.bucket, story.keys, "calm-otter-7")


def test_a_record_cannot_choose_a_folder_of_the_reader(story: Story) -> None:
    record = story.run("a-1", spec("train"))
    key = story.keys.run(record.id).record
    body = story.bucket.get(key) or b""
    story.bucket.put(key, body.replace(b'"name":"a-1"', b'"name":"../../x"'))
    with pytest.raises(BucketError):
        find_run(story.bucket, story.keys, record.id)


def test_what_a_final_run_says_is_what_was_recorded(story: Story) -> None:
    job = spec("train")
    record = story.run("a-1", job)
    outcome = story.outcome(record, job, "failed", reason="exit code 3", started=10.0, ended=20.0)
    story.final(record, "failed", outcome)
    view = run_view(story.bucket, story.keys, record)
    assert (view.status, view.user, view.ended) == (RunStatus.FAILED, "alice", record.submitted + 60)
    assert view.jobs[0].workflow == WorkflowName("train")
    assert (view.jobs[0].reason, view.jobs[0].started, view.jobs[0].ended) == ("exit code 3", 10.0, 20.0)
