"""A command in a terminal of its own, as a person sees it."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


def at_terminal(
    command: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    answer: tuple[str, str] = ("", ""),
    interrupt_at: str = "",
    limit: float,
) -> tuple[int, str]:
    """Run a command to its end, for `limit` seconds -> exit code, and everything that the terminal showed.

    `answer` is a text to wait for ("": none) and what is typed then; Ctrl-C is pressed once `interrupt_at` is shown.
    """
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command, cwd=cwd, env=dict(environment), stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    )
    os.close(slave)
    answer_at, typed = (text.encode() for text in answer)
    if typed and not answer_at:
        os.write(master, typed)
    data = _read_all(master, process, interrupt_at.encode(), (answer_at, typed), limit)
    os.close(master)
    return process.wait(limit), data.decode("utf-8", "replace").replace("\r\n", "\n")


def _read_all(
    master: int, process: subprocess.Popen[bytes], interrupt_at: bytes, answer: tuple[bytes, bytes], limit: float
) -> bytes:
    data, (answer_at, typed) = b"", answer
    deadline = time.monotonic() + limit
    while True:
        assert time.monotonic() < deadline, f"it does not end: {data[-500:]!r}"
        if select.select([master], [], [], 0.2)[0]:
            try:
                piece = os.read(master, 65536)
            except OSError:
                return data
            if not piece:
                return data
            data += piece
            if answer_at and answer_at in data:
                os.write(master, typed)
                answer_at = b""
            if interrupt_at and interrupt_at in data:
                process.send_signal(signal.SIGINT)
                interrupt_at = b""
        elif process.poll() is not None:
            return data
