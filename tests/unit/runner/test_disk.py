"""A full disk: the job may fail of it, its end must not be lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.runner.conftest import Host, Snapshot


@pytest.fixture
def small_disk(tmp_path: Path, snapshot: Snapshot) -> Iterator[Host]:
    """A host whose spool lies on a disk of 16 MB."""
    host = Host(tmp_path, snapshot)
    host.root.mkdir(mode=0o700)
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "small", str(host.root)]).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield host
    finally:
        host.tear_down()
        subprocess.run(["umount", "-l", str(host.root)], check=True)


def test_end_of_a_job_that_fills_the_disk_is_known_with_the_reason(small_disk: Host) -> None:
    client = small_disk.connect()
    nonce = small_disk.start(client, "head -c 100000000 /dev/zero > big")
    _, end = small_disk.finish(client, nonce)
    assert end["code"] == 1
    assert "disk of the host is full" in end["reason"]
    assert small_disk.connect().call("status", nonce=nonce)["exit"] == end


def test_attempt_that_finds_the_disk_full_is_refused_in_words(small_disk: Host) -> None:
    client = small_disk.connect()
    small_disk.start(client, "head -c 100000000 /dev/zero > big || sleep 1000", slots=2)
    small_disk.await_end_of_space()
    answer = client.ask("hold", nonce=small_disk.nonce(), slots=2)
    for _ in answer.data():
        pass
    assert "No space left" in answer.answer["error"]["message"]
