"""A project in a folder of its own, a home of its own, and the real `dstack` as a process; whole output is compared."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LIMIT = 120
"""Seconds that a command may take on a machine that does other things too."""


@dataclass(frozen=True)
class Done:
    """What one command gave."""

    code: int
    out: str
    err: str


class Project:
    """A project folder and a home. What differs from run to run is replaced in outputs: see `normal`."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "project"
        self.home = folder / "home"
        self.root.mkdir()
        self.home.mkdir()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("DSTACK_", "SSH_"))},
            "HOME": str(self.home),
            "COLUMNS": "80",
            "TERM": "dumb",
            "USER": "alice",
            "LOGNAME": "alice",
            "DSTACK_SLOTS_DIR": str(folder / "slots"),
            "PYTHONPYCACHEPREFIX": str(folder / "pyc"),
        }

    def write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def git(self) -> None:
        subprocess.run(["git", "init", "-q", "-b", "main"], cwd=self.root, check=True)

    def run(self, *arguments: str, env: Mapping[str, str] | None = None, stdin: str = "") -> Done:
        """The command with its output in pipes."""
        done = subprocess.run(
            [sys.executable, "-m", "dstack", *arguments],
            cwd=self.root,
            env={**self.environment, **(env or {})},
            input=stdin.encode(),
            capture_output=True,
            timeout=LIMIT,
            check=False,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def terminal(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        answer: str = "",
        answer_at: str = "",
        interrupt_at: str = "",
    ) -> Done:
        """The command in a terminal of 80 columns: all that it shows is in `out`. Answered once `answer_at` stands
        there, and interrupted once `interrupt_at` does."""
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "dstack", *arguments],
            cwd=self.root,
            env={**self.environment, "TERM": "xterm", **(env or {})},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        if answer and not answer_at:
            os.write(master, answer.encode())
        late = (answer_at.encode(), answer.encode()) if answer_at else (b"", b"")
        data = _read_all(master, process, interrupt_at.encode(), late)
        os.close(master)
        return Done(process.wait(LIMIT), data.decode("utf-8", "replace").replace("\r\n", "\n"), "")


def _read_all(master: int, process: subprocess.Popen[bytes], interrupt_at: bytes, answer: tuple[bytes, bytes]) -> bytes:
    data, (answer_at, said) = b"", answer
    deadline = time.monotonic() + LIMIT
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
                os.write(master, said)
                answer_at = b""
            if interrupt_at and interrupt_at in data:
                process.send_signal(signal.SIGINT)
                interrupt_at = b""
        elif process.poll() is not None:
            return data


RUN_NAME = re.compile(r"\b[a-z]+-[a-z]+-[0-9]{1,2}\b")


def names(text: str) -> list[str]:
    """The names of runs in a text, each once, in order."""
    return list(dict.fromkeys(RUN_NAME.findall(text)))
