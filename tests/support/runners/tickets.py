"""Tickets that are held, and few open files."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
from collections.abc import Iterator
from pathlib import Path


def locked(path: Path, stack: contextlib.ExitStack) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    stack.callback(os.close, fd)
    fcntl.flock(fd, fcntl.LOCK_EX)


@contextlib.contextmanager
def files_left(count: int) -> Iterator[None]:
    """Within the block this process can open so many more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/dev/fd"))) + count + 8, hard))
    taken: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        for _ in range(count):
            os.close(taken.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)
