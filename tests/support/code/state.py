"""What a state of a repository is, and how one is built."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

Files = dict[bytes, tuple[str, bytes]]


@dataclass(kw_only=True)
class State:
    """What a builder made: the project folder, and how the host's tree differs from the files on the laptop."""

    root: Path
    top: Path | None = None
    absent: set[str] = field(default_factory=set)
    """Files and folders that must not be shipped."""
    extra: Files = field(default_factory=dict)
    """Files that are shipped though they are not in the work tree."""
    plain: bool = True
    """The tree is the one that `git add -A && git write-tree` gives."""
    renewed: bool = False
    """git may renew the times of objects in the user's store, which it does when it expands a sparse index."""


Builder = Callable[[Path], State]
ZOO: dict[str, Builder] = {}


def zoo(builder: Builder) -> Builder:
    ZOO[builder.__name__] = builder
    return builder


def git(folder: Path, *arguments: str, ok: bool = True) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    setup = ["-c", "protocol.file.allow=always"]
    done = subprocess.run(["git", *setup, *arguments], cwd=folder, env=env, capture_output=True, check=False)
    assert done.returncode == 0 or not ok, done.stderr.decode()
    return done.stdout.decode("utf-8", "surrogateescape").strip()


def write(path: Path, data: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def old(path: Path) -> None:
    """Give a file an old time, so that git trusts its index and does not read the file again."""
    os.utime(path, (1_000_000_000, 1_000_000_000))


def started(folder: Path, *options: str) -> Path:
    """A repository with two commits."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main", *options)
    write(folder / "a.txt", "first\n")
    write(folder / "pkg/b.py", "print(1)\n")
    write(folder / "pkg/deep/c.py", "print(2)\n")
    write(folder / "gone.txt", "to go\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "one")
    write(folder / "a.txt", "second\n")
    git(folder, "commit", "-q", "-a", "-m", "two")
    return folder
