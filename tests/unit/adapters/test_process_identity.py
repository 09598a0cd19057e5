"""Who a coordinator is, and whether it lives: judged by real processes, killed for real."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dstack.adapters import process_identity
from dstack.adapters.process_identity import CoordinatorLock, coordinator_alive, new_nonce, new_run_id, new_run_name
from dstack.core.format.records import Coordinator

HERE = "this-boot"
HOLDER = """
import sys, time
from pathlib import Path
from dstack.adapters.process_identity import CoordinatorLock
with CoordinatorLock(Path(sys.argv[1]), sys.argv[2]) as lock:
    print(lock.path, flush=True)
    sys.stdin.read()
"""


def record(lock: CoordinatorLock, *, boot: str = HERE, path: str | None = None) -> Coordinator:
    return Coordinator(id=lock.id, user="u", machine="m", boot_id=boot, pid=1, lock=path or str(lock.path))


def holder(home: Path, coordinator: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(home), coordinator], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline().strip().endswith(f"{coordinator}.lock")
    return process


def finish(process: subprocess.Popen[str]) -> None:
    process.communicate()


@pytest.mark.parametrize("killed", [True, False])
def test_a_coordinator_lives_until_its_process_ends_and_is_dead_then(tmp_path: Path, killed: bool) -> None:
    lock = CoordinatorLock(tmp_path, new_nonce())
    process = holder(tmp_path, lock.id)
    assert coordinator_alive(record(lock), HERE) is True
    if killed:
        process.send_signal(signal.SIGKILL)
    finish(process)
    assert coordinator_alive(record(lock), HERE) is False


def test_a_program_that_the_coordinator_started_does_not_keep_it_alive(tmp_path: Path) -> None:
    with CoordinatorLock(tmp_path, new_nonce()) as lock:
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        assert coordinator_alive(record(lock), HERE) is False
    finally:
        child.kill()
        child.wait()


def test_a_coordinator_sees_itself_alive(tmp_path: Path) -> None:
    with CoordinatorLock(tmp_path, new_nonce()) as lock:
        assert coordinator_alive(record(lock), HERE) is True
    assert coordinator_alive(record(lock), HERE) is False


def test_nothing_is_sure_across_boots_machines_and_missing_files(tmp_path: Path) -> None:
    with CoordinatorLock(tmp_path, new_nonce()) as lock:
        assert coordinator_alive(record(lock, boot="another"), HERE) is None
        assert coordinator_alive(record(lock, boot=""), "") is None
        other = CoordinatorLock(tmp_path, new_nonce())
        assert coordinator_alive(record(other), HERE) is None
        assert coordinator_alive(record(other, path=str(lock.path)), HERE) is None
        assert coordinator_alive(record(lock, path=f"{lock.id}.lock"), HERE) is None


def test_a_hostile_record_names_a_pipe_or_a_link_and_nobody_waits(tmp_path: Path) -> None:
    lock = CoordinatorLock(tmp_path, new_nonce())
    pipe = tmp_path / f"{lock.id}.lock"
    os.mkfifo(pipe)
    assert coordinator_alive(record(lock, path=str(pipe)), HERE) is not True
    link = tmp_path / "x" / f"{lock.id}.lock"
    link.parent.mkdir()
    link.symlink_to("/etc/passwd")
    assert coordinator_alive(record(lock, path=str(link)), HERE) is None


def test_many_who_look_at_once_agree(tmp_path: Path) -> None:
    with CoordinatorLock(tmp_path, new_nonce()) as lock:
        pass
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: coordinator_alive(record(lock), HERE), range(2000)))
    assert set(found) == {False}


def test_the_lock_file_is_the_users_alone(tmp_path: Path) -> None:
    with CoordinatorLock(tmp_path, new_nonce()) as lock:
        assert lock.path == tmp_path / "coordinators" / f"{lock.id}.lock"
        assert lock.path.stat().st_mode & 0o777 == 0o600
        assert lock.path.parent.stat().st_mode & 0o777 == 0o700


def test_one_id_has_one_holder(tmp_path: Path) -> None:
    with CoordinatorLock(tmp_path, new_nonce()) as lock, pytest.raises(OSError, match="unavailable"):
        CoordinatorLock(tmp_path, lock.id).__enter__()


@pytest.mark.parametrize("wrong", ["", "../x", "a/b", ".hidden", "x" * 200])
def test_an_id_that_is_no_name_is_refused(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ValueError, match="no id"):
        CoordinatorLock(tmp_path, wrong)


def test_only_old_files_of_ended_coordinators_are_removed(tmp_path: Path) -> None:
    names = ["old" * 6, "fresh" * 6, "living" * 6, "new" * 6]
    old, fresh = CoordinatorLock(tmp_path, names[0]), CoordinatorLock(tmp_path, names[1])
    with old, fresh:
        pass
    with CoordinatorLock(tmp_path, names[2]) as living:
        long_ago = time.time() - process_identity.ENDED_LOCK_LIFETIME_S - 1000
        for lock in (old, living):
            os.utime(lock.path, (long_ago, long_ago))
        with CoordinatorLock(tmp_path, names[3]):
            left = sorted(path.stem for path in living.path.parent.iterdir())
    assert left == names[1:]


def test_boot_id_is_the_kernels_and_boottime_goes_on() -> None:
    assert re.fullmatch(r"[0-9a-f-]{36}", process_identity.boot_id())
    assert process_identity.boot_id() == process_identity.boot_id()
    first = process_identity.boottime()
    assert process_identity.boottime() >= first > 0


def test_a_test_may_name_the_boot_in_the_environment_of_its_account(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = process_identity.boot_id()
    other = "0b007000-0000-4000-8000-000000000001"
    monkeypatch.setenv("DSTACK_BOOT_ID", other)
    assert process_identity.boot_id() == other
    for malformed in ("", "1", other + "0", other + "\n", other.upper(), "../" + other, "\u0660" * 36):
        monkeypatch.setenv("DSTACK_BOOT_ID", malformed)
        assert process_identity.boot_id() == kernels


def test_the_user_is_the_accounts_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "somebody")
    monkeypatch.setenv("LOGNAME", "somebody")
    assert process_identity.user_name() == subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()
    assert process_identity.machine_name() == os.uname().nodename


def test_nonces_and_run_ids_are_random_and_runs_sort_newest_first() -> None:
    assert len({new_nonce() for _ in range(1000)}) == 1000
    assert re.fullmatch("[0-9a-f]{32}", new_nonce())
    ids = [new_run_id(1_800_000_000.0 + i) for i in range(100)]
    assert sorted(ids) == ids[::-1]
    assert all(re.fullmatch(r"[0-9]{13}-[a-z2-7]{10}", run) for run in ids)
    assert new_run_id(5.0) != new_run_id(5.0)


def test_new_names_are_names_and_differ() -> None:
    assert re.fullmatch(r"[a-z]+-[a-z]+-[1-9][0-9]?", new_run_name())
    assert len({new_run_name() for _ in range(50)}) > 40
