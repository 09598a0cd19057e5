"""Where the figures are taken: a laptop in a folder, the installed `dstack`, and one host with sshd in a container."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.hosts.farm import Farm, TestHost
from tests.support.hosts.home import Home, make_key
from tests.support.people.laptop import Laptop

KEX = "curve25519-sha256"
"""What dstack's own library negotiates. OpenSSH's default costs 130 ms more, which would flatter us."""
CIPHER = "aes128-gcm@openssh.com"
HOST = "bench"


class Unavailable(Exception):
    """What this figure needs is not on this machine."""


def dstack_script() -> Path:
    """The installed command beside this interpreter, as people start it."""
    script = Path(sys.executable).with_name("dstack")
    if not script.exists():
        raise Unavailable(f"{script} is not there: install dstack into this environment")
    return script


class Place:
    """One laptop, and one host that only it knows."""

    def __init__(self, folder: Path, farm: Farm | None) -> None:
        self.folder = folder
        (folder / "key").mkdir(parents=True)
        self.home = Home(folder / "home", make_key(folder / "key/id_ed25519"))
        self.farm = farm
        self._host: TestHost | None = None

    def laptop(self, name: str, *, slots: int | None = None, local: bool = False) -> Laptop:
        """A project of its own; runs go to the host with `slots` slots (None: as many as a host has by default)."""
        made = Laptop(self.folder / name, home=self.home.path)
        for unused in ("COLUMNS", "TERM"):
            made.environment.pop(unused)
        for unlike_a_user in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"):
            made.environment.pop(unlike_a_user, None)
        dot = made.home / ".dstack"
        dot.mkdir(exist_ok=True)
        inventory = dot / "hosts.yaml"
        inventory.unlink(missing_ok=True)
        if not local:
            host = self.host
            lines = [f"address: {host.address}", f"port: {host.port}", f"user: {host.user}"]
            lines += [f"identity-file: {self.home.key.file}", *([f"slots: {slots}"] if slots else [])]
            inventory.write_text(f"hosts:\n  {HOST}: {{{', '.join(lines)}}}\n")
        return made

    @property
    def host(self) -> TestHost:
        """The host, started when first asked for. It has an empty home: no start-up file slows a command down."""
        if self._host is None:
            farm = Farm(public_key=self.home.key.public)
            self.farm = farm
            self._host = farm.start()[0]
            self._host.run(["sh", "-c", "rm -f /home/alice/.bashrc /home/alice/.profile"])
            self.home.add(HOST, self._host, f"KexAlgorithms {KEX}", f"Ciphers {CIPHER}")
            self.home.trust(self._host)
        return self._host

    def ssh(self, *arguments: str) -> list[str]:
        """OpenSSH's own client to the host: the anchor."""
        self.host.wait_ready()
        options = [
            "-F",
            str(self.home.config),
            "-o",
            f"UserKnownHostsFile={self.home.known_hosts}",
            "-o",
            "BatchMode=yes",
        ]
        return ["ssh", *options, HOST, *arguments]

    def close(self) -> None:
        if self.farm is not None:
            self.farm.close()


@contextmanager
def opened(folder: Path) -> Iterator[Place]:
    """A place that is gone at the end of the block."""
    place = Place(folder, None)
    try:
        yield place
    finally:
        place.close()


def run_to_end(command: list[str], laptop: Laptop) -> None:
    """Run a command in the laptop's project, unheard; raises with what it said when it fails."""
    done = subprocess.run(
        command, cwd=laptop.root, env=laptop.environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout!r}\n{done.stderr!r}")


def first_and_last(command: list[str], *, cwd: Path, environment: dict[str, str]) -> tuple[float, float, int]:
    """Seconds from the start to the first byte on standard output, and to the last; and how many bytes there were."""
    start = time.perf_counter()
    with subprocess.Popen(
        command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        count, first, last = 0, 0.0, 0.0
        while data := os.read(process.stdout.fileno(), 1 << 20):
            last = time.perf_counter() - start
            first = first or last
            count += len(data)
        said = process.stderr.read()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {process.returncode}\n{said!r}")
    return first, last, count
