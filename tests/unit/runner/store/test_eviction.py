"""What the host store forgets. Runs on the Pythons of hosts, too."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from pathlib import Path

import pytest

from dstack.runner.base.spool import Attempt
from dstack.runner.job.process import failed_report
from dstack.runner.store import blob_store, eviction, intake
from dstack.runner.store.eviction import (
    FULL_SWEEP_INTERVAL_S,
    KEEP_AFTER_USE_S,
    STORE_SWEEP_INTERVAL_S,
    Blob,
    Disk,
    blobs_to_evict,
)
from dstack.wire import REFUSED, STARTED

NOW = 1e9
OLD = NOW - KEEP_AFTER_USE_S
ROOMY = Disk(total=1 << 40, free=1 << 39)
FULL = Disk(total=10_000, free=0)


def blobs(*sizes: int) -> list[Blob]:
    """The first was used longest ago."""
    return [Blob(str(number), size, OLD - 100 + number) for number, size in enumerate(sizes)]


def gone(found: list[Blob], disk: Disk, coming: int = 0) -> list[int]:
    return [int(blob.path) for blob in blobs_to_evict(found, disk, now=NOW, coming=coming)]


@pytest.mark.parametrize(
    ("sizes", "disk", "coming", "expected"),
    [
        ((100, 100), Disk(10_000, 5_000), 0, []),
        ((500, 500), Disk(10_000, 5_000), 0, []),  # just a tenth of the disk
        ((500, 500, 1), Disk(10_000, 5_000), 0, [0]),
        ((1, 500, 600), Disk(10_000, 5_000), 0, [0, 1]),
        ((100, 100, 100), Disk(10_000, 1_000), 0, []),  # just a tenth is free
        ((100, 100, 100), Disk(10_000, 999), 0, [0]),
        ((100, 100, 100), Disk(10_000, 800), 0, [0, 1]),
        ((100, 100, 100), Disk(10_000, 0), 0, [0, 1, 2]),
        ((100, 100, 100), Disk(10_000, 1_100), 300, [0, 1]),  # what comes is counted
        ((500, 300), Disk(10_000, 5_000), 300, [0]),
    ],
)
def test_what_was_used_longest_ago_goes_until_there_is_room(
    sizes: tuple[int, ...], disk: Disk, coming: int, expected: list[int]
) -> None:
    assert gone(blobs(*sizes), disk, coming) == expected
    assert gone(blobs(*sizes)[::-1], disk, coming) == expected


def test_what_was_used_of_late_stays_whatever_the_disk_says() -> None:
    found = [Blob("0", 100, OLD - 1), Blob("1", 100, OLD + 1), Blob("2", 100, NOW), Blob("3", 100, NOW + 1e6)]
    assert gone(found, FULL) == [0]


@pytest.fixture
def root(tmp_path: Path) -> str:
    """Ten blobs of 4 KiB, number 0 used longest ago, all of them a day or longer."""
    for number, body in enumerate(BODIES):
        intake.receive(str(tmp_path), [(digest(body), len(body))], [body])
        used(tmp_path, body, time.time() - 86_400 - 1000 + number)
    return str(tmp_path)


BODIES = [b"%d" % number * 4096 for number in range(10)]


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def used(root: Path, body: bytes, when: float) -> None:
    os.utime(blob_store.blob_path(str(root), digest(body)), (when, when))


def there(root: str) -> list[int]:
    return [number for number, body in enumerate(BODIES) if os.path.exists(blob_store.blob_path(root, digest(body)))]


def looked(root: str, seconds: float) -> None:
    """The last look at the store was so long ago."""
    then = time.time() - seconds
    os.utime(os.path.join(root, eviction.SWEEP_MARK), (then, then))


def test_a_store_that_is_too_large_forgets_and_says_how_much(root: str) -> None:
    looked(root, STORE_SWEEP_INTERVAL_S + 1)
    assert eviction.make_room(root, disk=Disk(10 * 7 * 4096, 1 << 30)) == 3 * 4096
    assert there(root) == [3, 4, 5, 6, 7, 8, 9]


def test_to_ask_for_a_blob_is_to_use_it(root: str) -> None:
    assert blob_store.missing(root, [digest(BODIES[0]), digest(b"x")]) == [digest(b"x")]
    looked(root, STORE_SWEEP_INTERVAL_S + 1)
    eviction.make_room(root, disk=FULL)
    assert there(root) == [0]


def test_inputs_that_come_make_room_for_themselves(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eviction, "_disk", lambda folder: Disk(10 << 20, (1 << 20) + 2 * 4096))
    looked(root, FULL_SWEEP_INTERVAL_S + 1)
    body = b"new" * 4096
    intake.receive(root, [(digest(body), len(body))], [body])
    assert there(root) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(("ago", "disk", "looks"), [
    (STORE_SWEEP_INTERVAL_S - 60, Disk(4096, 4096), False),
    (STORE_SWEEP_INTERVAL_S + 1, Disk(4096, 4096), True),
    (FULL_SWEEP_INTERVAL_S - 5, FULL, False),
    (FULL_SWEEP_INTERVAL_S + 1, FULL, True),
])  # fmt: skip
def test_the_whole_store_is_not_looked_at_all_the_time(root: str, ago: float, disk: Disk, looks: bool) -> None:
    looked(root, ago)
    assert (eviction.make_room(root, disk=disk) > 0) is looks
    assert eviction.make_room(root, disk=disk) == 0


def test_one_runner_at_a_time_looks(root: str) -> None:
    looked(root, STORE_SWEEP_INTERVAL_S + 1)
    fd = os.open(os.path.join(root, eviction.SWEEP_MARK), os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert eviction.make_room(root, disk=FULL) == 0
    os.close(fd)
    assert eviction.make_room(root, disk=FULL) == 10 * 4096


def test_a_host_without_a_store_is_no_trouble(tmp_path: Path) -> None:
    assert eviction.make_room(str(tmp_path)) == 0
    assert os.listdir(str(tmp_path)) == []


def test_what_lies_in_the_store_and_is_no_blob_stays(root: str) -> None:
    strange = os.path.join(root, "store", "notes")
    with open(strange, "w") as file:
        file.write("mine")
    looked(root, STORE_SWEEP_INTERVAL_S + 1)
    eviction.make_room(root, disk=FULL)
    assert there(root) == []
    assert os.path.exists(strange)
    assert eviction.make_room(root, disk=ROOMY) == 0


def an_attempt(root: str, nonce: str, *, days: float, verdict: str | None = None, ended: bool = False) -> Attempt:
    attempt = Attempt(root, nonce)
    attempt.make()
    os.makedirs(attempt.work)
    if verdict is not None:
        attempt.decide(verdict)
    if ended:
        attempt.write_exit(failed_report("over").replace(code=0))
    then = time.time() - days * 86_400
    os.utime(attempt.folder, (then, then))
    return attempt


def test_attempts_that_never_began_are_forgotten_after_two_days_and_no_others(root: str) -> None:
    long_ago = {
        "refused": an_attempt(root, "r" * 16, days=3, verdict=REFUSED),
        "held and killed": an_attempt(root, "k" * 16, days=3),
        "ended": an_attempt(root, "e" * 16, days=300, verdict=STARTED, ended=True),
        "vanished": an_attempt(root, "v" * 16, days=300, verdict=STARTED),
        "of late": an_attempt(root, "l" * 16, days=1, verdict=REFUSED),
        "held": an_attempt(root, "h" * 16, days=3),
    }
    alive = long_ago["held"].lock_alive()
    looked(root, STORE_SWEEP_INTERVAL_S + 1)
    eviction.make_room(root, disk=ROOMY)
    os.close(alive)
    assert {name for name, attempt in long_ago.items() if attempt.exists()} == {"ended", "vanished", "of late", "held"}
    assert long_ago["held"].read_verdict() is None
