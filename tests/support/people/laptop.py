"""A person's laptop in a folder: a home, a git repository with a project, and the real `dstack` as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LIMIT = 120
"""Seconds that one command may take."""


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=Alice", "-c", "user.email=alice@example.org", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


class Laptop:
    """`home` is $HOME, `root` the project. `marks` is a file outside dstack to which local jobs append lines."""

    def __init__(self, folder: Path, *, home: Path | None = None) -> None:
        self.home = home or folder / "home"
        self.root = folder / "project"
        self.marks = folder / "marks"
        self.home.mkdir(parents=True, exist_ok=True)
        self.root.mkdir(parents=True)
        slots = folder / "slots"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("DSTACK_", "SSH_"))},
            "HOME": str(self.home),
            "DSTACK_SLOTS_DIR": str(slots),
            "COLUMNS": "100",
            "TERM": "dumb",
        }

    def write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def commit(self) -> None:
        if not (self.root / ".git").exists():
            git(self.root, "init", "-q", "-b", "main")
        git(self.root, "add", "-A")
        git(self.root, "commit", "-q", "-m", "work")

    def start(
        self, *arguments: str, environment: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Start a command; -P keeps the project's modules out of it, as the installed `dstack` does."""
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "dstack", *arguments],
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
