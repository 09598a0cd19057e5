"""What every account of a host sees of another account's attempt: its locked ticket, or its supervisor's name."""

from __future__ import annotations

import fcntl
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.runner.queue import sightings
from dstack.wire import ALIVE, UNKNOWN, UNSEEN

NONCE = "0123456789abcdef0123456789abcdef"
ME = pwd.getpwuid(os.getuid()).pw_name
OTHER = "nobody"
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
NAMED = """
import sys, time
from dstack.runner.queue.sightings import name_supervisor
name_supervisor(sys.argv[1])
print("named", flush=True)
time.sleep(60)
"""


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shared queue of a host."""
    monkeypatch.setenv("DSTACK_SLOTS_DIR", str(tmp_path))
    return tmp_path


def ticket(queue: Path, nonce: str = NONCE, order: int = 1) -> Path:
    path = queue / f"{order:020d}-{nonce[:16]}"
    path.write_text("{}")
    return path


@pytest.fixture
def locked(queue: Path) -> Iterator[Path]:
    path = ticket(queue)
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield path


def test_a_locked_ticket_of_the_account_lives(locked: Path) -> None:
    assert sightings.sighting(NONCE, ME) == ALIVE


def test_a_lock_that_the_kernel_does_not_list_is_tried(locked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a job in a container whose supervisor was killed."""
    monkeypatch.setattr("dstack.runner.base.file_locks.LOCK_LIST", os.devnull)
    assert sightings.sighting(NONCE, ME) == ALIVE


def test_a_ticket_that_nobody_has_locked_is_not_alive_and_stays_as_it_is(queue: Path) -> None:
    path = ticket(queue)
    assert sightings.sighting(NONCE, ME) == UNSEEN
    assert path.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="needs a second account")
def test_a_ticket_of_another_account_proves_nothing(locked: Path) -> None:
    """Anybody may make a ticket of that name."""
    assert sightings.sighting(NONCE, OTHER) == UNSEEN
    os.chown(locked, pwd.getpwnam(OTHER).pw_uid, -1)
    assert sightings.sighting(NONCE, ME) == UNSEEN


@pytest.mark.skipif(os.getuid() != 0, reason="needs a second account")
def test_a_lock_that_another_account_holds_on_the_ticket_proves_nothing(locked: Path) -> None:
    """Anybody who may read the ticket may lock it."""
    os.chown(locked, pwd.getpwnam(OTHER).pw_uid, -1)
    assert sightings.sighting(NONCE, OTHER) == UNSEEN


@pytest.mark.skipif(os.getuid() != 0, reason="needs a second account")
def test_a_job_that_outlived_its_supervisor_keeps_the_ticket_locked(queue: Path) -> None:
    path = ticket(queue)
    script = "import fcntl, os, sys\nfd = os.open(sys.argv[1], os.O_RDONLY)\nfcntl.flock(fd, fcntl.LOCK_EX)\n"
    script += "child = os.fork()\nif child == 0:\n  os.read(0, 1)\nelse:\n  print(child, flush=True)\n"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdin is not None
        supervisor.stdout.readline()
        supervisor.wait(timeout=30)
        assert sightings.sighting(NONCE, ME) == ALIVE
        supervisor.stdin.close()


def test_the_ticket_of_another_attempt_is_none_of_this_one(locked: Path) -> None:
    assert sightings.sighting("f" * 32, ME) == UNSEEN


@pytest.mark.parametrize("kind", ["fifo", "folder", "link"])
def test_what_is_no_ticket_holds_nobody_up(queue: Path, kind: str) -> None:
    path = queue / f"{1:020d}-{NONCE[:16]}"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    assert sightings.sighting(NONCE, ME) == UNSEEN


@pytest.mark.parametrize(
    ("nonce", "account"),
    [
        (NONCE, "no such account"),
        (NONCE, ""),
        (NONCE, None),
        (NONCE, "a\0b"),
        ("../etc", ME),
        (7, ME),
        (NONCE, "9" * 40),
    ],
)
def test_what_names_no_attempt_of_an_account_here_is_not_known(queue: Path, nonce: object, account: object) -> None:
    assert sightings.sighting(nonce, account) == UNKNOWN


@LINUX
def test_where_no_queue_is_shared_the_supervisor_is_seen_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dstack.runner.queue.folders.SHARED_QUEUE", "/nowhere")
    monkeypatch.delenv("DSTACK_SLOTS_DIR", raising=False)
    assert sightings.sighting(NONCE, ME) == UNSEEN
    with subprocess.Popen([sys.executable, "-c", NAMED, NONCE], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            assert sightings.sighting(NONCE, ME) == ALIVE
            assert sightings.sighting(NONCE, OTHER) == UNSEEN
        finally:
            process.kill()
    assert sightings.sighting(NONCE, ME) == UNSEEN


def test_a_host_that_hides_its_accounts_says_that_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with /proc mounted with hidepid, and no shared queue."""
    monkeypatch.setattr("dstack.runner.queue.folders.SHARED_QUEUE", "/nowhere")
    monkeypatch.delenv("DSTACK_SLOTS_DIR", raising=False)
    monkeypatch.setattr(sightings, "PROC_FOLDER", "/nowhere")
    assert sightings.sighting(NONCE, OTHER) == UNKNOWN
