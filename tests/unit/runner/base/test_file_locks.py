"""The list of the kernel says who holds a file, and never who only waits for it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dstack.runner.base import file_locks

TEXT = """\
1: POSIX  ADVISORY  READ  5433 08:01:7864448 128 128
2: FLOCK  ADVISORY  WRITE 2001 08:1a:7864554 0 EOF
2: -> FLOCK  ADVISORY  WRITE 2002 08:1a:7864554 0 EOF
3: FLOCK  ADVISORY  READ  0 00:14:99 0 EOF
4: FLOCK  ADVISORY  READ  31 fd:00:7 0 EOF
4: FLOCK  ADVISORY  READ  32 fd:00:7 0 EOF
5: OFDLCK ADVISORY  READ -1 08:01:8713209 128 191
6: FLOCK  ADVISORY
7: FLOCK  ADVISORY  WRITE x 08:01:1 0 EOF
"""


def test_holders_are_told_from_those_that_wait() -> None:
    assert file_locks.parse(TEXT) == {(8, 0x1A, 7864554): [2001], (0, 0x14, 99): [], (0xFD, 0, 7): [31, 32]}


@pytest.mark.skipif(not Path(file_locks.LOCK_LIST).exists(), reason="this system does not list its locks")
def test_a_file_held_by_another_process_is_found(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    hold = "import fcntl,sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with path.open() as file:
            assert file_locks.holders()[file_locks.file_id(file.fileno())] == [holder.pid]
        holder.communicate("\n", timeout=20)
    with path.open() as file:
        assert file_locks.file_id(file.fileno()) not in file_locks.holders()


@pytest.mark.skipif(not Path(file_locks.LOCK_LIST).exists(), reason="this system does not list its locks")
def test_a_lock_of_this_process_is_found(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        assert file_locks.holders()[file_locks.file_id(fd)] == [os.getpid()]
    finally:
        os.close(fd)
