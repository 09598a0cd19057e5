"""A host on a small disk, and what fills it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.runners.host import Host, Snapshot

SECRETS = {"TOKEN": "correct horse battery"}


@pytest.fixture
def small_disk(tmp_path: Path, snapshot: Snapshot) -> Iterator[Host]:
    """A host whose spool lies on a disk of 16 MB."""
    host = Host(tmp_path, snapshot)
    host.root.mkdir(mode=0o700)
    if (
        os.getuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "small", str(host.root)]).returncode
    ):
        pytest.skip("mounting a small disk needs root")
    try:
        yield host
    finally:
        host.tear_down()
        subprocess.run(["umount", "-l", str(host.root)], check=True)


class Filler:
    """What takes all the room of a disk, and gives it back."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "filler"

    def fill(self, *, leave: int = 0) -> None:
        with self._file.open("ab", buffering=0) as file:
            step = 1 << 16
            while step:
                try:
                    while True:
                        file.write(b"x" * step)
                except OSError:
                    step //= 16
        size = self._file.stat().st_size
        os.truncate(self._file, max(0, size - leave))

    def empty(self) -> None:
        self._file.unlink(missing_ok=True)
