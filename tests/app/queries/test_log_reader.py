"""Logs out of the bucket: every byte in order, to the end, whatever happens meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from dstack.adapters.bucket.folder import FolderBucket
from dstack.app.queries.log_reader import follow_logs, read_logs
from dstack.errors import NotFoundError
from tests.support.buckets.memory import MemoryBucket
from tests.support.records.specs import spec
from tests.support.records.story import Story


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


class Slow(MemoryBucket):
    """Answers a read of a log's piece behind the first ones when another is on its way too, and counts lists."""

    def __init__(self) -> None:
        super().__init__()
        self.together = threading.Barrier(4)
        self.lists = 0

    def get(self, key: str) -> bytes | None:
        if "/log/" in key and int(key[-16:], 16) >= 40 * 10 and int(key[-16:], 16) < 80 * 10:
            self.together.wait(20)
        return super().get(key)

    def list(self, prefix: str, *, limit: int | None = None) -> Sequence[str]:
        self.lists += "/log/" in prefix
        return super().list(prefix, limit=limit)


@pytest.mark.parametrize("follow", [False, True])
def test_a_long_log_is_read_ahead_in_its_order(follow: bool) -> None:
    bucket = Slow()
    story, job = Story(bucket), spec("a")
    record = story.run("r-1", job)
    story.log(story.attempt(record, job), *(b"line %04d\n" % number for number in range(200)))
    story.outcome(record, job)
    if follow:
        pieces = follow_logs(bucket, story.keys, record, pause=lambda _: pytest.fail("it waits"), at_once=4)
    else:
        pieces = read_logs(bucket, story.keys, record, at_once=4)
    assert joined(list(pieces), "a") == b"".join(b"line %04d\n" % number for number in range(200))
    assert bucket.lists == 2  # one for what is read ahead, one whether there is more behind its end


def test_what_a_list_does_not_show_of_a_log_yet_is_found_by_its_offset() -> None:
    class Stale(MemoryBucket):
        def list(self, prefix: str, *, limit: int | None = None) -> Sequence[str]:
            found = super().list(prefix, limit=limit)
            return [key for key in found if not key.endswith(f"{50 * 10:016x}")] if "/log/" in prefix else found

    story, job = Story(Stale()), spec("a")
    record = story.run("r-1", job)
    lines = [b"line %04d\n" % number for number in range(100)]
    story.log(story.attempt(record, job), *lines)
    assert joined(list(read_logs(story.bucket, story.keys, record, at_once=4)), "a") == b"".join(lines)


def test_a_short_log_is_read_without_a_list() -> None:
    bucket = Slow()
    story, job = Story(bucket), spec("a")
    record = story.run("r-1", job)
    story.log(story.attempt(record, job), *(b"line %04d\n" % number for number in range(15)))
    list(read_logs(bucket, story.keys, record, at_once=4))
    assert bucket.lists == 0


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


def playing(steps: Iterator[None]) -> Callable[[float], None]:
    """A pause between two looks in which the next step happens, if there is one."""
    return lambda _: next(steps, None)


def test_following_gives_what_comes_and_ends_with_the_outcome(story: Story) -> None:
    job = spec("a")
    record = story.run("r-1", job)

    def steps() -> Iterator[None]:
        attempt = story.attempt(record, job)
        yield
        story.put(attempt.log(0), b"one\n")
        yield
        story.put(attempt.log(4), b"tw")
        yield
        yield
        story.put(attempt.log(6), b"o")  # the last bytes and the outcome come between two looks
        story.outcome(record, job)
        yield

    pieces = list(follow_logs(story.bucket, story.keys, record, pause=playing(steps())))
    assert joined(pieces, "a") == b"one\ntwo"
    assert pieces[-1] == ("a", b"")


def test_following_goes_on_with_the_next_attempt(story: Story) -> None:
    job = spec("a")
    record = story.run("r-1", job)
    first = story.attempt(record, job, 1)
    story.log(first, b"first ")

    def steps() -> Iterator[None]:
        story.put(first.log(6), b"rest ")  # and its end and the second attempt come between two looks
        story.end(first)
        story.log(story.attempt(record, job, 2), b"2")
        yield
        story.outcome(record, job, attempt=2)
        yield

    pieces = list(follow_logs(story.bucket, story.keys, record, pause=playing(steps())))
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
