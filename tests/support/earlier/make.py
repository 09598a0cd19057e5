"""Make the world of an earlier dstack: python make.py EARLIER TARGET.

EARLIER is the python of an environment in which the earlier dstack is installed; TARGET is the archive to write.
"""

from __future__ import annotations

import getpass
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

WORKFLOWS = """
workflows:
  - name: prepare
    depends-on: {repo: {include: [prepare.sh]}}
    commands:
      - sh prepare.sh
    artifacts: [data]
  - name: train
    depends-on: {repo: {include: []}, workflows: [prepare]}
    commands:
      - mkdir model; (cat data/rows; echo "lr=$lr") > model/weights
      - echo "trained with $lr"
    artifacts: [model]
  - name: broken
    depends-on: {repo: {include: []}}
    commands:
      - echo "nothing works"; exit 3
  - name: patient
    depends-on: {repo: {include: []}}
    commands:
      - echo "begun"
      - while [ ! -e gate ]; do sleep 0.1; done
      - mkdir out; echo "after the gate" > out/word; echo "ended"
    artifacts: [out]
  - name: after
    depends-on: {repo: {include: []}, workflows: [patient]}
    commands:
      - cat out/word > late.txt; echo "took $(cat out/word)"
    artifacts: [late.txt]
  - name: queued
    depends-on: {repo: {include: []}}
    commands:
      - echo "at last" > last.txt
    artifacts: [last.txt]
"""
FILES = {
    ".dstack/workflows.yaml": WORKFLOWS,
    ".dstack/variables.yaml": "variables:\n  train:\n    lr: 0.002\n",
    ".dstack/hosts.yaml": "hosts:\n  here: {local: true, slots: 1}\n",
    "prepare.sh": "mkdir -p data/empty; echo 1 2 3 > data/rows; ln -s rows data/link; : > data/nothing\n",
}
LIMIT = 120.0
"""Seconds that any step may take."""
ROOT, USER, MACHINE, BOOT = "/earlier-root", "earlier-user", "earlier-machine", "earlier-boot"
"""Stand in the archive for the folder, account, name and boot of the machine."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def until(question: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not question():
        if time.monotonic() > deadline:
            raise SystemExit(f"never happened: {what}")
        time.sleep(0.05)


class World:
    def __init__(self, root: Path, python: str) -> None:
        self.python = python
        self.home, self.project, self.slots = root / "home", root / "project", root / "slots"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DSTACK_", "SSH_"))}
        self.environment = {**kept, "HOME": str(self.home), "DSTACK_SLOTS_DIR": str(self.slots), "TERM": "dumb"}
        self.home.mkdir()
        for name, text in FILES.items():
            path = self.project / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for arguments in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "work"]):
            identity = ["-c", "user.name=Alice", "-c", "user.email=alice@example.org"]
            subprocess.run(["git", *identity, *arguments], cwd=self.project, check=True, env=self.environment)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [self.python, "-P", "-m", "dstack", *arguments]
        return subprocess.Popen(
            command, cwd=self.project, env=self.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def dstack(self, *arguments: str, code: int = 0) -> None:
        done = self.start(*arguments).wait(LIMIT)
        if done != code:
            raise SystemExit(f"dstack {' '.join(arguments)}: exit {done}")

    def spool(self) -> list[Path]:
        return list(self.home.glob(".dstack/spool/*"))

    def attempt_of(self, workflow: str) -> Path | None:
        for folder in self.spool():
            record = folder / "attempt.json"
            if record.exists() and json.loads(record.read_text())["title"].split("/")[1] == workflow:
                return folder
        return None


def make(world: World) -> None:
    world.dstack("run", "train")
    world.dstack("run", "train")  # all of it reused
    world.dstack("run", "broken", code=1)
    stopped = world.start("run", "patient")
    until(lambda: (found := world.attempt_of("patient")) and (found / "log").read_bytes(), "the job to stop has begun")
    world.dstack("stop", "-")
    stopped.wait(LIMIT)
    until(lambda: world.attempt_of("patient") is None, "the stopped attempt was released")
    open_run = world.start("run", "after", "--rerun")
    until(lambda: (found := world.attempt_of("patient")) and (found / "log").read_bytes(), "the open run has begun")
    queued = world.start("run", "queued")
    until(lambda: len(world.spool()) > 1, "the queued job waits")
    time.sleep(1.5)
    for process in (queued, open_run):
        process.kill()
        process.wait()
    attempt = world.attempt_of("patient")
    assert attempt is not None
    (attempt / "work/gate").touch()
    until(lambda: (attempt / "exit.json").exists(), "the job ends without its coordinator")
    until(lambda: not list(world.slots.glob("[0-9]*")), "no ticket is left")


def neutral(body: bytes, root: Path) -> bytes:
    """The same file without a word about the machine that made it; `earlier.lay_out` puts in the words of another."""
    body = body.replace(str(root).encode(), ROOT.encode()).replace(BOOT_ID.read_bytes().strip(), BOOT.encode())
    user, machine = getpass.getuser(), socket.gethostname()
    body = body.replace(f"{user}@{machine}".encode(), f"{USER}@{MACHINE}".encode())
    for name in ("user", "account"):
        body = body.replace(f'"{name}":"{user}"'.encode(), f'"{name}":"{USER}"'.encode())
    return body.replace(f'"machine":"{machine}"'.encode(), f'"machine":"{MACHINE}"'.encode())


def pack(root: Path, target: Path) -> None:
    """All that must be kept, in one archive with the times of the files. The runners are left out: nothing of an
    archive is ever executed."""
    person = f"{getpass.getuser()}@{socket.gethostname()}"
    with tarfile.open(target, "w:xz") as archive:
        for path in sorted([*(root / "home").rglob("*"), *(root / "project").rglob("*")]):
            name = str(path.relative_to(root))
            if name.startswith(("project/.git/", "home/.dstack/runner/")) or name == "project/.git":
                continue
            info = archive.gettarinfo(path, name.replace(person, f"{USER}@{MACHINE}"))
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            body = neutral(path.read_bytes(), root) if info.isreg() else b""
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))


def main(python: str, target: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        make(World(root, python))
        pack(root, Path(target))


if __name__ == "__main__":
    main(*sys.argv[1:])
