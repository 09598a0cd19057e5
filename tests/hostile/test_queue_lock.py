"""The lock of the queue, which every account can take: who keeps it is named, and nobody hangs on it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faults import villain
from tests.support.faults.villain import BOB
from tests.support.people.laptop import Laptop
from tests.support.runners.client import until


@pytest.fixture
def queue() -> Iterator[Path]:
    villain.need_accounts()
    with villain.common_folder("dstack-lock-") as folder:
        yield villain.shared_queue(folder)


@pytest.fixture
def laptop(queue: Path) -> Laptop:
    made = Laptop(queue.parent / "alice")
    made.environment |= {"DSTACK_SLOTS_DIR": str(queue), "COLUMNS": "400"}
    made.write({".dstack/workflows.yaml": f"workflows:\n  - name: train\n    commands: ['echo ran >> {made.marks}']\n"})
    made.commit()
    return made


def processes_of(queue: Path) -> list[str]:
    """The command lines of all processes that were started with this queue; judged by /proc alone."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"DSTACK_SLOTS_DIR={queue}".encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")[:200])
        except OSError:
            continue
    return found


def test_the_list_of_the_queue_names_who_has_its_lock(laptop: Laptop, queue: Path) -> None:
    with villain.holding(queue / "lock") as pid:
        began = time.monotonic()
        done = laptop.dstack("queue", code=None)
        assert time.monotonic() - began < 30
    assert done.returncode != 0
    assert f"held by {BOB} (process {pid}, python3" in done.stderr
    assert "nothing runs" not in done.stdout
    assert laptop.dstack("queue").stdout == "nothing runs or waits\n"


def test_a_run_says_who_has_the_lock_and_goes_on_once_it_is_free(laptop: Laptop, queue: Path) -> None:
    said: list[str] = []
    with contextlib.ExitStack() as held:
        pid = held.enter_context(villain.holding(queue / "lock"))
        with laptop.start("run", "train") as run:
            readers = [threading.Thread(target=said.extend, args=(stream,)) for stream in (run.stdout, run.stderr)]
            for reader in readers:
                reader.start()
            until(lambda: f"held by {BOB} (process {pid}" in "".join(said), "the run says why it waits")
            assert laptop.local_marks() == []
            held.close()
            for reader in readers:
                reader.join(60)
    assert run.wait(60) == 0, said
    assert laptop.local_marks() == ["ran"]


def test_a_run_that_waits_for_the_lock_ends_when_it_is_told_to_and_leaves_no_process(
    laptop: Laptop, queue: Path
) -> None:
    with villain.holding(queue / "lock"):
        name = laptop.dstack("run", "train", "-d").stdout.split()[0]
        until(lambda: laptop.statuses(name)["train"] in ("queued", "waiting"), "the job waits")
        laptop.dstack("stop", name)
        until(lambda: not processes_of(queue), "every process of the run is gone", seconds=20)
    assert laptop.local_marks() == []
