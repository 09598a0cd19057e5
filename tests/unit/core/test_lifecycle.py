"""States: what may follow, and what a bucket says of a job and of a run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.core.lifecycle import (
    BEGUN_STATES,
    ENDED_STATES,
    FOLLOWERS,
    GOOD_STATES,
    NOT_BEGUN_STATES,
    RAN_ENDS,
    TRIED_ENDS,
    AttemptEnd,
    attempt_status,
    end_without_result,
    may_follow,
    overall_status,
)
from dstack.model import ExitReport, JobStatus, RunStatus

STATES = st.sampled_from(JobStatus)
PARTS = ("owner", "started", "log", "data", "manifest", "end", "gone")


def test_every_state_says_what_may_follow_and_is_open_or_ended() -> None:
    assert set(FOLLOWERS) == set(JobStatus)
    assert BEGUN_STATES | set(NOT_BEGUN_STATES) | ENDED_STATES == set(JobStatus)
    assert len(BEGUN_STATES) + len(NOT_BEGUN_STATES) + len(ENDED_STATES) == len(JobStatus)


@given(STATES, STATES)
def test_nothing_follows_an_end_and_anything_may_be_shown_again(before: JobStatus, after: JobStatus) -> None:
    assert may_follow(before, before)
    if before in ENDED_STATES and after is not before:
        assert not may_follow(before, after)


@pytest.mark.parametrize("before", JobStatus)
def test_from_every_open_state_a_job_can_fail_be_lost_and_be_stopped(before: JobStatus) -> None:
    if before not in ENDED_STATES:
        assert all(may_follow(before, end) for end in (JobStatus.FAILED, JobStatus.LOST, JobStatus.STOPPED))
        assert not may_follow(before, JobStatus.WAITING) or before is JobStatus.WAITING, "its inputs do not go away"


def test_a_job_that_is_being_stopped_is_not_queued_again() -> None:
    assert not may_follow(JobStatus.STOPPING, JobStatus.QUEUED)
    assert may_follow(JobStatus.RUNNING, JobStatus.QUEUED), "it may be tried again"


@given(st.lists(STATES, min_size=1))
def test_a_run_goes_on_while_a_job_is_open_and_succeeds_when_all_have_results(statuses: list[JobStatus]) -> None:
    found = overall_status(statuses)
    assert (found is RunStatus.RUNNING) == any(status not in ENDED_STATES for status in statuses)
    assert (found is RunStatus.SUCCEEDED) == all(status in GOOD_STATES for status in statuses)


@given(st.lists(st.sampled_from(sorted(ENDED_STATES))), st.lists(st.sampled_from(sorted(ENDED_STATES))))
def test_the_worst_end_counts_whatever_the_order(some: list[JobStatus], more: list[JobStatus]) -> None:
    worst = [RunStatus.SUCCEEDED, RunStatus.STOPPED, RunStatus.LOST, RunStatus.FAILED]
    ranks = [worst.index(overall_status(each)) for each in (some, more)]
    assert overall_status(some + more) is overall_status(more + some) is worst[max(ranks)]


@given(st.sets(st.sampled_from(PARTS)), st.booleans())
def test_the_folder_of_an_attempt_tells_what_its_job_does(parts: set[str], stopping: bool) -> None:
    found = attempt_status(parts, stopping=stopping)
    assert found not in ENDED_STATES, "that is for outcomes to say"
    assert (found is JobStatus.QUEUED) == ("end" in parts)
    if not parts & {"end", "data", "manifest"}:
        assert (found is JobStatus.STOPPING) == stopping
    if not parts:
        assert found is (JobStatus.STOPPING if stopping else JobStatus.PLACED)


@pytest.mark.parametrize(
    ("parts", "status"),
    [({"started"}, JobStatus.RUNNING), ({"log"}, JobStatus.RUNNING), ({"started", "data"}, JobStatus.UPLOADING)],
)
def test_what_a_job_has_written_tells_how_far_it_is(parts: set[str], status: JobStatus) -> None:
    assert attempt_status(parts, stopping=False) is status


@pytest.mark.parametrize(
    ("report", "end"),
    [
        (ExitReport(code=1), AttemptEnd.FAILED),
        (ExitReport(code=None, vanished=True), AttemptEnd.LOST),
        (ExitReport(code=None, vanished=True, stopped=True), AttemptEnd.STOPPED),
        (ExitReport(code=0), AttemptEnd.FAILED),
    ],
)
def test_an_attempt_without_a_result_was_stopped_lost_or_failed(report: ExitReport, end: AttemptEnd) -> None:
    assert end_without_result(report) is end


def test_ends_are_the_words_of_the_format_and_groups_hold_no_end_with_a_result() -> None:
    words = {"succeeded", "failed", "stopped", "lost", "interrupted", "void", "superseded"}
    assert {str(end) for end in AttemptEnd} == words
    for group in (TRIED_ENDS, RAN_ENDS):
        assert not {AttemptEnd.SUCCEEDED, AttemptEnd.SUPERSEDED, AttemptEnd.VOID} & set(group)
