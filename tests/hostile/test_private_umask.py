"""Whatever the umask is, all that dstack makes below its folder is its owner's alone, and everything works.

Root's right to pass over modes is dropped for the commands under test: then a folder of mode 0000 stops root, too.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.people.laptop import LIMIT, Laptop
from tests.support.waiting import until

ROUNDS = int(os.environ.get("DSTACK_ROUNDS", "1"))
UMASKS = (0, 0o002, 0o022, 0o077, 0o777)
PRIVATE = {0o400, 0o500, 0o600, 0o700}
"""Modes of a private file; git takes its owner's right to write from what never changes."""
SECRET = "correct horse battery staple"
WORKFLOWS = """
workflows:
  - name: make
    env: [TOKEN]
    commands:
      - mkdir -p out/deep && echo made > out/deep/file && umask > out/umask
    artifacts: [out]
  - name: take
    depends-on: [make]
    commands:
      - cat out/deep/file
      - while [ -d "${GATE%%/*}" ] && [ ! -e "$GATE" ]; do sleep 0.05; done
    env: {GATE: "%(gate)s"}
    artifacts: [out]
"""
pytestmark = pytest.mark.timeout(120)


class Account:
    """A laptop whose commands run under one umask, and without any right to pass over modes."""

    def __init__(self, folder: Path, umask: int) -> None:
        self._umask = umask
        self.gate = folder / "gate"
        self.laptop = Laptop(folder)
        self.laptop.write({".dstack/workflows.yaml": WORKFLOWS % {"gate": self.gate}})
        self.laptop.commit()
        self.own = self.laptop.home / ".dstack"

    def dstack(self, *arguments: str, stdin: str = "", code: int = 0) -> str:
        """Run a command to its end -> all that it printed."""
        command = [sys.executable, "-P", "-m", "dstack", *arguments]
        if os.geteuid() == 0:
            command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--", *command]
        done = subprocess.run(
            command,
            cwd=self.laptop.root,
            env={**self.laptop.environment, "TOKEN": "tk-5eC4c1f5"},
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            umask=self._umask,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == code, done.stdout
        assert "Traceback" not in done.stdout
        assert "was open to other accounts" not in done.stdout, "not even for a moment"
        return done.stdout


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other accounts may enter, unlike those of pytest."""
    path = Path(subprocess.check_output(["mktemp", "-d", "-p", "/tmp", "dstack-umask-XXXXXX"], text=True).strip())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def open_paths(top: Path) -> list[str]:
    """What below `top`, itself included, is not its owner's alone; what jobs made lies in folders that are."""
    found = []
    for path, folders, files in os.walk(top):
        if Path(path).name in ("work", "home") and "spool" in Path(path).parts:
            folders.clear()
            files = []
        state = os.lstat(path)
        if stat.S_IMODE(state.st_mode) & 0o777 != 0o700:
            found.append(f"{stat.S_IMODE(state.st_mode):o} {path}")
        for name in files:
            state = os.lstat(os.path.join(path, name))
            if not stat.S_ISLNK(state.st_mode) and stat.S_IMODE(state.st_mode) not in PRIVATE:
                found.append(f"{stat.S_IMODE(state.st_mode):o} {path}/{name}")
    return found


@pytest.mark.parametrize("umask", UMASKS, ids=oct)
def test_a_run_with_artifacts_and_secrets_leaves_private_folders_and_files(folder: Path, umask: int) -> None:
    account = Account(folder, umask)
    account.dstack("secrets", "set", "KEY", "--global", stdin=SECRET)
    account.dstack("run", "make")
    assert not open_paths(account.own)
    made = {path.name for path in account.own.iterdir()}
    assert {"bucket", "code", "coordinators", "runner", "secrets.json", "snapshots", "spool", "store"} <= made
    # What is pulled follows the umask: with 0777 into a folder that nobody may enter.
    account.dstack("artifacts", "pull", "-", "-o", str(folder / "pulled"), code=1 if umask == 0o777 else 0)
    if umask != 0o777:
        assert (folder / "pulled/out/umask").read_text().strip() == "0022", "the job has its own"


@pytest.mark.parametrize("umask", [0, 0o002, 0o777], ids=oct)
def test_a_project_in_the_home_itself_is_private_too(folder: Path, umask: int) -> None:
    account = Account(folder, umask)
    account.laptop.root = account.laptop.home
    account.dstack("init", "--bucket", str(folder / "bucket"))
    assert {path.name for path in account.own.iterdir()} == {"config.yaml", "workflows.yaml", "variables.yaml"}
    assert not open_paths(account.own)
    account.dstack("ps")


@pytest.mark.parametrize("umask", UMASKS if ROUNDS > 1 else (0, 0o777), ids=oct)
def test_all_is_private_while_a_detached_coordinator_and_a_job_live(folder: Path, umask: int) -> None:
    account = Account(folder, umask)
    account.dstack("hosts", "add", "here", "--local", "--offline")
    account.dstack("run", "take", "-d")
    spool = account.own / "spool"
    until("the job runs", lambda: any((one / "verdict").exists() for one in spool.glob("*")), seconds=60)
    until("the coordinator is awake", lambda: list((account.own / "coordinators").glob("*.lock")), seconds=60)
    assert not open_paths(account.own)
    account.gate.touch()
    account.dstack("attach", "-")
    assert "made" in account.dstack("logs", "-", "take")
    assert not open_paths(account.own)
