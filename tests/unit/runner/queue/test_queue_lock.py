"""The lock of the queue: waited for in steps, given up when nobody wants it, and its holder named past the limit."""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.runner.base.spool import try_lock
from dstack.runner.queue import queue_lock
from dstack.runner.queue.queue_lock import WaitPolicy
from dstack.wire import Refusal

HOLD = "import fcntl,sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); input()"


def sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


@contextlib.contextmanager
def held(path: Path) -> Iterator[subprocess.Popen[str]]:
    path.touch()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.communicate("\n" if process.poll() is None else None, timeout=20)


@pytest.mark.timeout(30)
def test_past_the_limit_the_holder_is_named(tmp_path: Path) -> None:
    with held(tmp_path / "lock") as holder, pytest.raises(Refusal) as refused:
        queue_lock.take_lock(lambda: [str(tmp_path)], WaitPolicy(sleep, timeout_s=0.2))
    assert f"(process {holder.pid}, python" in refused.value.message
    assert str(tmp_path / "lock") in refused.value.message
    assert refused.value.kind == "lock"


@pytest.mark.timeout(30)
def test_a_wait_that_nobody_wants_any_more_ends_in_a_step(tmp_path: Path) -> None:
    steps = []

    def given_up(seconds: float) -> bool:
        steps.append(seconds)
        return len(steps) == 5

    with held(tmp_path / "lock"):
        assert queue_lock.take_lock(lambda: [str(tmp_path)], WaitPolicy(given_up)) is None
    assert max(steps) <= queue_lock.MAX_RETRY_PAUSE_S


@pytest.mark.timeout(30)
def test_a_holder_that_stays_is_named_anew_only_after_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_lock, "NAME_HOLDER_AFTER_S", 0.3)
    began = time.monotonic()
    lookups: list[float] = []
    tries = 0

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        if looking and event == "open" and arguments[0] == "/proc/locks":
            lookups.append(time.monotonic() - began)

    def given_up(seconds: float) -> bool:
        nonlocal tries
        tries += 1
        sleep(seconds)
        return time.monotonic() - began > 1.5

    looking = True
    sys.addaudithook(audit)
    try:
        with held(tmp_path / "lock"):
            assert queue_lock.take_lock(lambda: [str(tmp_path)], WaitPolicy(given_up)) is None
    finally:
        looking = False
    assert tries > 20
    assert 1 <= len(lookups) <= 5, lookups


@pytest.mark.timeout(60)
def test_a_long_wait_says_why_and_says_when_it_is_over(tmp_path: Path) -> None:
    said: list[str] = []
    with contextlib.ExitStack() as stack:
        holder = stack.enter_context(held(tmp_path / "lock"))

        def given_up(seconds: float) -> bool:
            if said and holder.poll() is None:
                holder.kill()
            return sleep(seconds)

        lock = queue_lock.take_lock(lambda: [str(tmp_path)], WaitPolicy(given_up, said.append))
        assert lock is not None
        with lock:
            assert len(said) == 2
            assert f"process {holder.pid}" in said[0]
            assert said[1] == ""


def test_all_folders_are_locked_or_none(tmp_path: Path) -> None:
    folders = [str(tmp_path / name) for name in ("a", "b")]
    for folder in folders:
        Path(folder).mkdir()
    with held(Path(folders[1], "lock")), pytest.raises(Refusal):
        queue_lock.take_lock(lambda: folders, WaitPolicy(sleep, timeout_s=0.1))
    with Path(folders[0], "lock").open() as first:
        assert try_lock(first.fileno(), fcntl.LOCK_EX)
        fcntl.flock(first, fcntl.LOCK_UN)
        lock = queue_lock.take_lock(lambda: folders, WaitPolicy(sleep, timeout_s=0.1))
        assert lock is not None
        with lock:
            assert not try_lock(first.fileno(), fcntl.LOCK_SH)
        assert try_lock(first.fileno(), fcntl.LOCK_SH)


def test_a_later_folder_whose_lock_cannot_be_opened_is_left_out(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    (second / "lock").symlink_to("/etc/passwd")
    lock = queue_lock.take_lock(lambda: [str(first), str(second)], WaitPolicy(sleep))
    assert lock is not None
    with lock:
        assert lock.folders == [str(first)]
    with pytest.raises(Refusal, match="cannot be used"):
        queue_lock.take_lock(lambda: [str(second)], WaitPolicy(sleep))
