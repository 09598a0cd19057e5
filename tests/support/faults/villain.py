"""Other accounts of this machine, made of bare numbers, and what one of them does to the others."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PYTHON = "/usr/bin/python3"
"""An interpreter that every account may run; this one's own may lie in a private home."""
ALICE = 20_000 + 2 * (os.getpid() % 20_000)
BOB = ALICE + 1
"""Accounts without a name, others in each process of the suite: what lies in /var/tmp has their numbers in its name."""
FOLDER, FIFO, LINK = "folder", "fifo", "link"
PLANT = """
import base64, fcntl, json, os, sys
folder, wanted = sys.argv[1], json.loads(sys.stdin.readline())
kept = []
for name, what in wanted:
    path = os.path.join(folder, name)
    if what["kind"] == "folder": os.mkdir(path)
    elif what["kind"] == "fifo": os.mkfifo(path)
    elif what["kind"] == "link": os.symlink("/etc/passwd", path); continue
    else:
        with open(path, "wb") as file:
            file.write(base64.b64decode(what["body"]))
            if what["size"]: file.truncate(what["size"])
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.flock(fd, fcntl.LOCK_EX)
    if what["mode"] is not None: os.chmod(path, what["mode"])
    kept.append(fd)
print("planted", flush=True)
sys.stdin.read()
"""
HOLD = """
import fcntl, sys
with open(sys.argv[1]) as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


def need_accounts() -> None:
    """Skip where this process cannot act as another account."""
    if os.getuid() != 0 or not Path(PYTHON).exists():
        pytest.skip(f"only root can act as another account, and {PYTHON} must be there")


def body(data: bytes, *, size: int = 0, mode: int | None = None) -> dict[str, object]:
    """A planted file: its bytes, the size that it is stretched to, and its mode once it is locked."""
    return {"kind": "file", "body": base64.b64encode(data).decode(), "size": size, "mode": mode}


def kind(word: str) -> dict[str, object]:
    return {"kind": word, "mode": None}


@contextlib.contextmanager
def common_folder(prefix: str) -> Iterator[Path]:
    """A folder that every account may enter, as pytest's own is not."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def shared_queue(folder: Path) -> Path:
    """The queue of all accounts as root makes it."""
    queue = folder / "slots"
    queue.mkdir()
    queue.chmod(0o1777)
    (queue / "lock").touch()
    (queue / "lock").chmod(0o444)
    return queue


@contextlib.contextmanager
def planted(queue: Path, tickets: Mapping[str, Mapping[str, object]], uid: int = BOB) -> Iterator[int]:
    """Files of another account in the queue, locked where a lock is possible -> the process that has the locks."""
    with _acting(uid, PLANT, str(queue)) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(list(tickets.items())) + "\n")
        process.stdin.flush()
        _expect(process, "planted")
        yield process.pid


@contextlib.contextmanager
def holding(lock: Path, uid: int = BOB) -> Iterator[int]:
    """A lock that another account keeps -> its process."""
    with _acting(uid, HOLD, str(lock)) as process:
        _expect(process, "held")
        yield process.pid


@contextlib.contextmanager
def _acting(uid: int, script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [PYTHON, "-I", "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        user=uid,
        group=uid,
        extra_groups=[],
    )
    try:
        yield process
    finally:
        process.communicate(timeout=30)


def _expect(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == f"{word}\n"
