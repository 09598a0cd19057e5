"""What is shown of a job that another coordinator looks after."""

from __future__ import annotations

import asyncio
import time

import pytest

from dstack.app.driver import Driver
from dstack.app.effects import Show
from dstack.app.fleet import Fleet
from dstack.app.heart import Heart
from dstack.app.means import Means
from dstack.app.observing import Observer
from dstack.core.keys import ProjectKeys
from dstack.core.records import Started, pack
from dstack.model import Fingerprint, JobStatus, WorkflowName
from tests.app.simulator import run_of
from tests.fakes.bucket_memory import MemoryBucket

KEYS = ProjectKeys.of("p")
ATTEMPT = KEYS.job(Fingerprint("f" * 64), 1).attempt(1)
NAME = WorkflowName("a")
LIMIT = 30.0


class Seen:
    """Implements `Screen`: keeps what it was told of jobs."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, str, str, float]] = []

    def job(self, workflow: str, status: str, host: str, note: str, took: float = 0.0) -> None:
        self.jobs.append((status, host, note, took))

    def log(self, workflow: str, data: bytes) -> None: ...
    def progress(self, label: str, done: int, total: int) -> None: ...
    def message(self, text: str) -> None: ...


class Counting(MemoryBucket):
    reads = 0

    def get(self, key: str) -> bytes | None:
        self.reads += key == ATTEMPT.started
        return super().get(key)


def driver(bucket: MemoryBucket, screen: Seen) -> Driver:
    means = Means(
        bucket=bucket,
        project="p",
        keys=KEYS,
        fleet=Fleet((), None),  # type: ignore[arg-type]
        code=None,  # type: ignore[arg-type]
        screen=screen,
        observer=Observer(bucket, KEYS, sure=lambda other: None, boottime=lambda: 0.0),
        caller={},
        new_nonce=lambda: "n",
        heart=Heart(bucket, KEYS.heartbeat("me"), print),
    )
    return Driver(means, run_of(1, ("a",)))


def running(note: str, *, mine: bool = False) -> Show:
    return Show(workflow=NAME, status=JobStatus.RUNNING, host="gpu-1", note=note, attempt=ATTEMPT, mine=mine)


def test_a_job_of_others_has_run_since_its_start_and_not_since_it_was_first_shown() -> None:
    bucket, screen = Counting(), Seen()
    bucket.put(ATTEMPT.started, pack(Started(nonce="n", at=time.time() - 240)))

    async def scene() -> None:
        made = driver(bucket, screen)
        await made.perform(running("bob looks after it"))
        assert screen.jobs == [("running", "gpu-1", "bob looks after it", 0.0)], "shown at once"
        deadline = time.monotonic() + LIMIT
        while len(screen.jobs) < 2 and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        await made.perform(running("bob looks after it"))
        await made.perform(running("gpu-1 unreachable"))
        await asyncio.sleep(0.1)
        await made.close()

    asyncio.run(scene())
    assert [job[:3] for job in screen.jobs] == [
        ("running", "gpu-1", "bob looks after it"),
        ("running", "gpu-1", "bob looks after it"),
        ("running", "gpu-1", "gpu-1 unreachable"),
    ]
    assert screen.jobs[1][3] == pytest.approx(240, abs=LIMIT)
    assert bucket.reads == 1


@pytest.mark.parametrize("at", [None, 0.0])
def test_a_start_that_is_not_known_changes_nothing(at: float | None) -> None:
    bucket, screen = Counting(), Seen()
    if at is not None:
        bucket.put(ATTEMPT.started, pack(Started(nonce="n", at=at)))

    async def scene() -> None:
        made = driver(bucket, screen)
        await made.perform(running(""))
        deadline = time.monotonic() + LIMIT
        while bucket.reads == 0 and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        await made.close()

    asyncio.run(scene())
    assert screen.jobs == [("running", "gpu-1", "", 0.0)]
    assert bucket.reads == 1


def test_the_start_of_ones_own_job_is_not_read() -> None:
    bucket, screen = Counting(), Seen()

    async def scene() -> None:
        made = driver(bucket, screen)
        await made.perform(running("", mine=True))
        await asyncio.sleep(0.05)
        await made.close()

    asyncio.run(scene())
    assert bucket.reads == 0
