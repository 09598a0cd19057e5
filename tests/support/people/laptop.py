"""A person's laptop in a folder: a home, a project, and the real `dstack` as a process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.people.terminal import at_terminal

LIMIT = 120
"""Seconds that one command may take on a machine that does other things too."""
RUN_NAME = re.compile(r"\b[a-z]+-[a-z]+-[0-9]{1,2}\b")


def names(text: str) -> list[str]:
    """The names of runs in a text, each once, in order."""
    return list(dict.fromkeys(RUN_NAME.findall(text)))


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=Alice", "-c", "user.email=alice@example.org", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@dataclass(frozen=True)
class Done:
    """The exit code and the outputs of one command."""

    code: int
    out: str
    err: str


class Laptop:
    """`home` is $HOME, `root` the project. `marks` is a file outside dstack to which local jobs append lines."""

    def __init__(self, folder: Path, *, home: Path | None = None, user: str = "", columns: int = 100) -> None:
        """`home` is made in `folder` by default; `user` is the account that commands see, by default the real one."""
        self.home = home or folder / "home"
        self.root = folder / "project"
        self.marks = folder / "marks"
        self.home.mkdir(parents=True, exist_ok=True)
        self.root.mkdir(parents=True)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("DSTACK_", "SSH_"))},
            **({"USER": user, "LOGNAME": user} if user else {}),
            "HOME": str(self.home),
            "DSTACK_SLOTS_DIR": str(folder / "slots"),
            "COLUMNS": str(columns),
            "TERM": "dumb",
        }

    def write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def git(self) -> None:
        """Make the project a repository, without a commit."""
        git(self.root, "init", "-q", "-b", "main")

    def commit(self) -> None:
        if not (self.root / ".git").exists():
            self.git()
        git(self.root, "add", "-A")
        git(self.root, "commit", "-q", "-m", "work")

    def command(self, *arguments: str) -> list[str]:
        """`dstack ARGUMENTS`; -P keeps the project's modules out of it, as the installed `dstack` does."""
        return [sys.executable, "-P", "-m", "dstack", *arguments]

    def start(
        self, *arguments: str, environment: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Start a command, with its output in pipes."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.root,
            env={**self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            **options,
        )

    def dstack(self, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; `code` None accepts any exit code."""
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"dstack {' '.join(arguments)} did not end\n{out}\n{err}") from None
        if code is not None:
            assert process.returncode == code, f"dstack {' '.join(arguments)}: exit {process.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def run(self, *arguments: str, env: Mapping[str, str] | None = None, stdin: str = "") -> Done:
        """Run a command to its end, whatever its exit code is; `stdin` is its input."""
        done = subprocess.run(
            self.command(*arguments),
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
        """The command in a terminal: all that it shows is in `out`. Answered once `answer_at` stands there, and
        interrupted once `interrupt_at` does."""
        code, shown = at_terminal(
            self.command(*arguments),
            cwd=self.root,
            environment={**self.environment, "TERM": "xterm", **(env or {})},
            answer=(answer_at, answer),
            interrupt_at=interrupt_at,
            limit=LIMIT,
        )
        return Done(code, shown, "")

    def run_json(self, *arguments: str, code: int | None = 0) -> dict[str, Any]:
        """`dstack run … --json`, parsed."""
        found: dict[str, Any] = json.loads(self.dstack("run", *arguments, "--json", code=code).stdout)
        return found

    def show(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.dstack("show", run, "--json").stdout)
        return found

    def statuses(self, run: str) -> dict[str, str]:
        return {job["workflow"]: job["status"] for job in self.show(run)["jobs"]}

    def local_marks(self) -> list[str]:
        return self.marks.read_text().splitlines() if self.marks.exists() else []
