"""Jobs in containers of the local Docker engine, seen from outside."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lacking import missing
from tests.support.runners.host import Host

SMALL = "debian:bookworm-slim"
PYTHON = "python:3.11-slim"


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False).stdout.strip()


@pytest.fixture
def engine() -> None:
    if shutil.which("docker") is None or not docker("version", "--format", "{{.Server.Version}}"):
        missing("docker", "none answers")
    for image in (SMALL, PYTHON):
        if not docker("image", "inspect", "--format", "{{.Id}}", image):
            missing("docker", f"this one has no image {image}")


@pytest.fixture
def contained(host: Host, engine: None) -> Iterator[Host]:
    yield host
    for nonce in [path.name for path in (host.root / "spool").iterdir()]:
        docker("rm", "--force", f"dstack-{nonce}")


def client_pid(nonce: str) -> int:
    """The docker client that is attached to an attempt's container."""
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except (OSError, NotADirectoryError):
            continue
        if words[:2] == [b"docker", b"start"] and f"dstack-{nonce}".encode() in words:
            return int(entry.name)
    return 0


def gone(nonce: str) -> bool:
    return docker("ps", "--all", "--quiet", "--filter", f"label=dstack.attempt={nonce}") == ""
