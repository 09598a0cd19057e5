"""A host in a temporary folder: its spool, its slots, and as many runners as a test connects."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.support.runners.client import Client, Stream, until


class Snapshot:
    """A parentless commit of a few files, and its bundle."""

    def __init__(self, folder: Path) -> None:
        repository = folder / "repository"
        (repository / "sub").mkdir(parents=True)
        (repository / "hello.txt").write_text("hello\n")
        (repository / "sub" / "inner.txt").write_text("inner\n")
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.invalid"]
        self._git = ["git", "-C", str(repository), *identity]
        self._run("init", "-q")
        self._run("add", "-A")
        self._run("commit", "-q", "-m", "snapshot")
        self.commit = self._run("rev-parse", "HEAD")
        self.tree = self._run("rev-parse", "HEAD^{tree}")
        self._run("update-ref", f"refs/dstack/{self.commit}", self.commit)
        self._run("bundle", "create", "-q", str(folder / "bundle"), f"refs/dstack/{self.commit}")
        self.bundle = (folder / "bundle").read_bytes()

    def _run(self, *arguments: str) -> str:
        return subprocess.run([*self._git, *arguments], check=True, capture_output=True, text=True).stdout.strip()


class Host:
    """One host as a test sees it; `root` and `slots` are its folders."""

    def __init__(self, folder: Path, snapshot: Snapshot) -> None:
        self.root = folder / "dstack"
        self.slots = folder / "slots"
        self.python = os.environ.get("DSTACK_HOST_PYTHON", "python3")
        self._snapshot = snapshot
        self._clients: list[Client] = []
        self._count = 0

    def connect(self, **options: Any) -> Client:
        return self._open(**options).start()

    def connect_with(self, zipapp: bytes) -> Client:
        """Connect and send these bytes as the runner."""
        return self._open().start(zipapp)

    def _open(self, **options: Any) -> Client:
        client = Client(self.root, self.slots, **{"python": self.python, **options})
        self._clients.append(client)
        return client

    def nonce(self) -> str:
        self._count += 1
        return f"{os.getpid():08d}{self._count:012d}"

    def folder(self, nonce: str) -> Path:
        return self.root / "spool" / nonce

    def prepare(self, client: Client, nonce: str, script: str, **fields: Any) -> dict[str, Any]:
        """`prepare` as a coordinator does it, with the snapshot pushed before if the host lacks it."""
        code = {"project": "p", "commit": self._snapshot.commit}
        if not client.call("code.basis", known=[], **code)["have"]:
            client.push("code.push", [self._snapshot.bundle], tree=self._snapshot.tree, **code)
        plain: dict[str, Any] = {"prefix": "", "arguments": [], "environment": {}, "artifacts": [], "inputs": []}
        plain |= {"image": None, "shm_size": None, "max_duration": None, "title": "t", "script": script}
        plain |= {"attempt": "where/it/is/"}
        return client.call("prepare", nonce=nonce, **code, tree=self._snapshot.tree, **{**plain, **fields})

    def start(self, client: Client, script: str, *, slots: int = 1, secrets: Any = None, **fields: Any) -> str:
        """Hold, prepare, go; returns the nonce of the started attempt."""
        nonce = self.nonce()
        client.call("hold", nonce=nonce, slots=slots)
        self.prepare(client, nonce, script, **fields)
        before = time.time()
        answer = client.call("go", nonce=nonce, environment=secrets or {})
        assert answer["started"] is True
        assert before - 1 < answer["at"] < time.time() + 1
        return nonce

    def finish(self, client: Client, nonce: str) -> tuple[bytes, dict[str, Any]]:
        """Follow to the end: the whole log and the exit report."""
        stream: Stream = client.ask("follow", nonce=nonce, offset=0)
        log = b"".join(stream.data())
        return log, stream.answer["ok"]["exit"]

    def run(self, client: Client, script: str, **options: Any) -> tuple[bytes, dict[str, Any]]:
        return self.finish(client, self.start(client, script, **options))

    def state(self, client: Client, nonce: str) -> str:
        return str(client.call("status", nonce=nonce)["state"])

    def await_log(self, client: Client, nonce: str, text: bytes) -> None:
        until(lambda: text in (self.folder(nonce) / "log").read_bytes(), f"{text!r} in the log")

    def processes(self) -> list[int]:
        """Processes of any attempt; the runners themselves, which only look, do not count."""
        runners = {client.process.pid for client in self._clients}
        return [pid for pid in processes_with(str(self.root / "spool")) if pid not in runners]

    def await_end_of_space(self) -> None:
        until(lambda: os.statvfs(self.root).f_bavail == 0, "the disk is full")

    def tear_down(self) -> None:
        for client in self._clients:
            if client.process.poll() is None:
                client.kill()
            client.discard()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def processes_with(folder: str) -> list[int]:
    """Processes that have a file below `folder` open or work in it; judged by /proc alone."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            places = [os.readlink(link) for link in [entry / "cwd", *(entry / "fd").iterdir()]]
        except OSError:
            continue
        if any(place.startswith(folder) for place in places):
            found.append(int(entry.name))
    return found


MEBIBYTE = 1 << 20


def resident(pid: int) -> int:
    """Highest resident size of a process so far, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
