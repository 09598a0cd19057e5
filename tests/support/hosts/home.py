"""A home folder of the test's own, with the client's key, ~/.ssh/config and known_hosts."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Reachable(Protocol):
    name: str
    address: str
    port: int
    user: str

    def known_hosts_line(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKey:
    """The key pair of a test session, an OpenSSH private key file and its public line."""

    file: Path

    @property
    def public(self) -> str:
        return self.file.with_suffix(".pub").read_text().strip()


def make_key(file: Path, *, passphrase: str = "", kind: str = "ed25519") -> ClientKey:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "test", "-f", str(file)], check=True)
    return ClientKey(file=file)


class Home:
    """`path` is to be $HOME; nothing of the real one is read."""

    def __init__(self, path: Path, key: ClientKey) -> None:
        self.path = path
        self.key = key
        self.ssh = path / ".ssh"
        self.config = self.ssh / "config"
        self.known_hosts = self.ssh / "known_hosts"
        self.confirmed = path / ".dstack" / "known_hosts"
        self.ssh.mkdir(mode=0o700, parents=True)
        self.config.touch(mode=0o600)
        self.known_hosts.touch(mode=0o600)

    def add(self, name: str, host: Reachable, *extra: str) -> None:
        """A Host block for `host` under `name`, with the session's key, before whatever is there."""
        lines = [f"Host {name}", f"HostName {host.address}", f"Port {host.port}", f"User {host.user}"]
        lines += [f"IdentityFile {self.key.file}", *extra]
        self.config.write_text("\n  ".join(lines) + "\n" + self.config.read_text())

    def trust(self, *hosts: Reachable) -> None:
        """Write the real host keys, read from inside the hosts, into ~/.ssh/known_hosts."""
        with self.known_hosts.open("a") as stream:
            stream.writelines(host.known_hosts_line() for host in hosts)

    def environment(self) -> dict[str, str]:
        """The environment of a CLI process that lives here: no agent, this HOME."""
        kept = {name: value for name, value in os.environ.items() if name not in ("SSH_AUTH_SOCK", "SSH_AGENT_PID")}
        return {**kept, "HOME": str(self.path)}
