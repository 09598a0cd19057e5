"""Logs out of the bucket: every byte in order, to the end, whatever happens meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from dstack.adapters.bucket_folder import FolderBucket
from dstack.app.follow import follow_logs, read_logs
from dstack.errors import NotFoundError
from tests.app.bucket_story import Story, spec


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(FolderBucket(tmp_path / "bucket"))


def joined(pieces: list[tuple[str, bytes]], workflow: str) -> bytes:
    return b"".join(data for name, data in pieces if name == workflow)


def test_pieces_are_read_in_order_job_by_job(story: Story) -> None:
    a, b = spec("a"), spec("b")
    record = story.run("r-1", a, b)
    for job, text in ((a, b"A"), (b, b"B")):
        story.log(story.attempt(record, job), text * 3, text * 2 + b"\n")
        story.outcome(record, job)
    assert list(read_logs(story.bucket, story.keys, record)) == [
        *[("a", b"AAA"), ("a", b"AA\n"), ("a", b"")],
        *[("b", b"BBB"), ("b", b"BB\n"), ("b", b"")],
    ]
    assert {name for name, _ in read_logs(story.bucket, story.keys, record, workflow="b")} == {"b"}


def test_an_earlier_attempt_can_be_read(story: Story) -> None:
    job = spec("a")
    record = story.run("r-1", job)
    first = story.attempt(record, job, 1)
    story.log(first, b"one")
    story.end(first)
    story.log(story.attempt(record, job, 2), b"two")
    assert joined(list(read_logs(story.bucket, story.keys, record, workflow="a")), "a") == b"two"
    assert joined(list(read_logs(story.bucket, story.keys, record, workflow="a", attempt=1)), "a") == b"one"
    with pytest.raises(NotFoundError) as caught:
        list(read_logs(story.bucket, story.keys, record, workflow="a", attempt=3))
    assert caught.value.hint == "it has attempts 1 to 2"


def test_following_gives_what_comes_and_ends_with_the_outcome(story: Story) -> None:
    job = spec("a")
    record = story.run("r-1", job)
    events = iter(
        [
            lambda: state.update(attempt=story.attempt(record, job)),
            lambda: story.put(state["attempt"].log(0), b"one\n"),
            lambda: story.put(state["attempt"].log(4), b"tw"),
            lambda: None,
            # The last bytes and the outcome come between two looks.
            lambda: (story.put(state["attempt"].log(6), b"o"), story.outcome(record, job)),
        ]
    )
    state: dict = {}
    pieces = list(follow_logs(story.bucket, story.keys, record, pause=lambda _: next(events, lambda: None)()))
    assert joined(pieces, "a") == b"one\ntwo"
    assert pieces[-1] == ("a", b"")


def test_following_goes_on_with_the_next_attempt(story: Story) -> None:
    job = spec("a")
    record = story.run("r-1", job)
    first = story.attempt(record, job, 1)
    story.log(first, b"first ")
    events = iter(
        [
            # The rest of the first attempt, its end and the second attempt come between two looks.
            lambda: (
                story.put(first.log(6), b"rest "),
                story.end(first),
                story.log(story.attempt(record, job, 2), b"2"),
            ),
            lambda: story.outcome(record, job, attempt=2),
        ]
    )
    pieces = list(follow_logs(story.bucket, story.keys, record, pause=lambda _: next(events, lambda: None)()))
    assert joined(pieces, "a") == b"first rest 2"


def test_looks_get_rarer_while_nothing_happens_and_at_most_one_second_apart(story: Story) -> None:
    job = spec("a")
    record = story.run("r-1", job)
    story.attempt(record, job)
    waits: list[float] = []

    def pause(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 20:
            story.outcome(record, job)

    list(follow_logs(story.bucket, story.keys, record, pause=pause))
    assert waits == sorted(waits)
    assert waits[0] <= 0.2
    assert waits[-1] == 1.0


def test_a_job_that_is_skipped_ends_the_following(story: Story) -> None:
    job = spec("a")
    record = story.run("r-1", job)
    story.outcome(record, job, "stopped", fingerprint="", generation=0, attempt=0)
    assert list(follow_logs(story.bucket, story.keys, record, pause=lambda _: pytest.fail("it waits"))) == [("a", b"")]
