"""This machine's own sshd on a loopback port, run by and for this account: where there is no Docker engine.

It is the machine itself, so nothing is ever executed on it here: there is no `run` as a container has.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from tests.support.hosts.home import make_key
from tests.support.waiting import banner, until


class SshdMissing(Exception):
    """There is no sshd that this account could run."""


def find_sshd() -> str:
    """The sshd of this machine; raises SshdMissing with the reason when there is none to use."""
    if os.getuid() == 0:
        raise SshdMissing("sshd run by root would need an account and a folder of its own on this machine")
    path = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if path is None:
        raise SshdMissing("there is no sshd on this machine")
    return path


class LocalHost:
    """One sshd with a host key, a port and a log of its own."""

    def __init__(self, folder: Path, public_key: str) -> None:
        self.name = "local-sshd"
        self.address = "127.0.0.1"
        self.user = getpass.getuser()
        self._folder = folder
        self._log = folder / "log"
        self._public_key = public_key
        with socket.create_server((self.address, 0)) as plug:
            self.port = int(plug.getsockname()[1])
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        sshd, key = find_sshd(), self._folder / "host_key"
        if not key.exists():
            make_key(key)
        (self._folder / "authorized_keys").write_text(self._public_key + "\n")
        settings = {
            "ListenAddress": f"{self.address}:{self.port}",
            "HostKey": key,
            "AuthorizedKeysFile": self._folder / "authorized_keys",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "LogLevel": "VERBOSE",
        }
        config = self._folder / "sshd_config"
        config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        process = subprocess.Popen([sshd, "-D", "-f", str(config), "-E", str(self._log)], stdin=subprocess.DEVNULL)
        try:
            until("sshd shows its banner", lambda: banner(self.address, self.port).startswith(b"SSH-2.0-"), seconds=10)
        except AssertionError:
            process.kill()
            process.wait()
            raise SshdMissing(f"sshd does not start: {self.sshd_log()}") from None
        return process

    def sshd_log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def sessions(self) -> int:
        return self.sshd_log().count("Starting session: ")

    def host_key(self) -> str:
        return " ".join((self._folder / "host_key.pub").read_text().split()[:2])

    def known_hosts_line(self) -> str:
        return f"[{self.address}]:{self.port} {self.host_key()}\n"

    def swap_host_key(self) -> None:
        self.kill()
        for name in ("host_key", "host_key.pub"):
            (self._folder / name).unlink()
        self._process = self._start()

    def pause(self) -> None:
        """Freeze the listener; connections that are open have processes of their own."""
        self._process.send_signal(signal.SIGSTOP)

    def unpause(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
