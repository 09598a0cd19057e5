"""Test hosts: containers with sshd on a loopback port, and hosts that only another one reaches."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker  # type: ignore[import-untyped]
from docker.errors import DockerException, NotFound  # type: ignore[import-untyped]

from tests.support.hosts.image import build, build_with_docker, engine
from tests.support.waiting import banner, until

LABEL = "dstack.test"
USER = "alice"
SOCKET = "/var/run/docker.sock"

# alice may use the engine's socket and owns the shared folder. What she writes there the test must be able to remove.
SHARE = """
set -e
[ "$2" = 0 ] || usermod --uid "$2" alice
chown alice "$1"
chown -R alice /home/alice
gid=$(stat -c %g /var/run/docker.sock)
getent group "$gid" > /dev/null || groupadd --gid "$gid" engine
usermod --append --groups "$(getent group "$gid" | cut -d: -f1)" alice
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a command ended, seen from outside of SSH."""

    code: int
    output: bytes


class TestHost:
    """One container with sshd. What it says of itself is asked through the engine, never through SSH."""

    __test__ = False

    def __init__(self, container: Any, name: str, address: str, port: int) -> None:
        self.container = container
        self.name = name
        self.address = address
        """How to reach it: from here, or from its jump host."""
        self.port = port
        self.user = USER

    def exec(self, argv: Sequence[str], *, user: str = "root", environment: dict[str, str] | None = None) -> Done:
        code, output = self.container.exec_run(list(argv), user=user, environment=environment)
        return Done(code=code, output=output or b"")

    def run(self, argv: Sequence[str], *, user: str = "root") -> bytes:
        """The output of a command that must succeed."""
        done = self.exec(argv, user=user)
        assert done.code == 0, f"{argv} in {self.name}: {done.output!r}"
        return done.output

    def write(self, path: str, content: bytes, *, mode: int = 0o644, user: str = USER) -> None:
        """Lay a file down inside; its folder must exist."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            member = tarfile.TarInfo(Path(path).name)
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
        assert self.container.put_archive(str(Path(path).parent), packed.getvalue())
        self.run(["chown", user, path])

    def sshd_log(self) -> str:
        """All that sshd has logged, at level VERBOSE."""
        log: bytes = self.container.logs()
        return log.decode("utf-8", "replace")

    def sessions(self) -> int:
        """How many sessions sshd has started: each is a command, a shell or a subsystem."""
        return self.sshd_log().count("Starting session: ")

    def processes(self) -> list[str]:
        """The command lines of everything that runs inside."""
        return self.run(["ps", "-eo", "args="]).decode().splitlines()

    def host_key(self) -> str:
        """`<algorithm> <base64>` of the key that sshd shows."""
        return " ".join(self.run(["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).decode().split()[:2])

    def known_hosts_line(self) -> str:
        name = self.address if self.port == 22 else f"[{self.address}]:{self.port}"
        return f"{name} {self.host_key()}\n"

    def shell(self, path: str) -> None:
        """Give alice another login shell."""
        self.run(["usermod", "--shell", path, USER])

    def configure(self, text: str) -> None:
        """Add to sshd's configuration and let it read that again."""
        self.run(["sh", "-c", f"printf '%s\\n' '{text}' >> /etc/ssh/sshd_config"])
        self._reload()

    def swap_host_key(self) -> None:
        """Give the host another key, as a reinstalled or a false host has."""
        key = "/etc/ssh/ssh_host_ed25519_key"
        self.run(["sh", "-c", f"rm -f {key} {key}.pub && ssh-keygen -q -t ed25519 -N '' -f {key}"])
        self._reload()

    def _reload(self) -> None:
        before = self.sshd_log().count("Server listening on")
        self.run(["sh", "-c", "kill -HUP $(cat /run/sshd.pid)"])
        until("sshd listens again", lambda: self.sshd_log().count("Server listening on") > before)

    def pause(self) -> None:
        """Freeze every process; the network stays, and nobody answers."""
        self.container.pause()

    def unpause(self) -> None:
        self.container.unpause()

    def kill(self) -> None:
        self.container.kill()

    def wait_ready(self) -> None:
        if self.address == "127.0.0.1":
            until(f"{self.name} shows its banner", lambda: banner(self.address, self.port).startswith(b"SSH-2.0-"))
        else:
            until(f"{self.name} listens", lambda: "Server listening on" in self.sshd_log())


@dataclass(slots=True, kw_only=True)
class Farm:
    """Starts test hosts and removes them; the names are this farm's own, so that sessions do not collide."""

    public_key: str
    client: docker.DockerClient = field(default_factory=engine)
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:10])
    _hosts: list[TestHost] = field(default_factory=list)
    _networks: list[Any] = field(default_factory=list)
    _volumes: list[Any] = field(default_factory=list)

    def start(
        self, count: int = 1, *, environment: dict[str, str] | None = None, shared: Path | None = None
    ) -> list[TestHost]:
        """`count` hosts, each reached at its own port of 127.0.0.1. `shared` is a folder that all of them have, at the
        same path, and that alice may write to."""
        volumes = {str(shared): {"bind": str(shared)}} if shared else {}
        hosts = [self._published(environment=environment, volumes=volumes) for _ in range(count)]
        for host in hosts:
            host.wait_ready()
            if shared:
                host.run(["chgrp", USER, str(shared)])
                host.run(["chmod", "2770", str(shared)])
        return hosts

    def behind(self, jump: TestHost) -> TestHost:
        """A host without a published port, which only `jump` reaches, by its name and port 22."""
        network = self.client.networks.create(self._name("net"), internal=True, labels={LABEL: self.id})
        self._networks.append(network)
        network.connect(jump.container)
        container = self._container(network=network.name)
        host = TestHost(container, container.name, container.name, 22)
        self._hosts.append(host)
        host.wait_ready()
        return host

    def bare(self, folders: dict[str, str], environment: dict[str, str]) -> Any:
        """A container that is no host: it sees `folders` (path -> mode), and reaches what this machine reaches."""
        volumes = {path: {"bind": path, "mode": mode} for path, mode in folders.items()}
        return self.client.containers.run(
            build(self.client),
            detach=True,
            init=True,
            name=self._name("laptop"),
            labels={LABEL: self.id},
            entrypoint=["sleep", "infinity"],
            network_mode="host",
            volumes=volumes,
            environment=environment,
        )

    def network(self) -> str:
        """A network of this farm's own, whose containers reach each other by their names -> its name."""
        network = self.client.networks.create(self._name("net"), labels={LABEL: self.id})
        self._networks.append(network)
        return str(network.name)

    def volume(self) -> str:
        """A folder of this farm's own, for containers to share -> its name."""
        volume = self.client.volumes.create(self._name("volume"), labels={LABEL: self.id})
        self._volumes.append(volume)
        return str(volume.name)

    def inside(self, network: str, hostname: str, *, command: Sequence[str] = (), **settings: Any) -> TestHost:
        """A container on a network of this farm, reached from there alone: with sshd or, with `command`, without."""
        entry = {"entrypoint": list(command)} if command else {}
        container = self._container(network=network, hostname=hostname, **entry, **settings)
        self._hosts.append(TestHost(container, hostname, container.name, 22))
        return self._hosts[-1]

    def gateway(self) -> str:
        """The address of this machine as hosts see it."""
        # Asked of a container: an engine that was just installed does not name it for the network itself.
        container = self._container()
        container.reload()
        address = str(container.attrs["NetworkSettings"]["Networks"]["bridge"]["Gateway"])
        container.remove(force=True, v=True)
        return address

    def with_docker(self, folder: Path) -> TestHost:
        """A host where alice may use this machine's engine; `folder` is hers and has the same path inside and outside,
        as containers that she starts see paths of the machine that the engine runs on."""
        mounts = {SOCKET: {"bind": SOCKET}, str(folder): {"bind": str(folder)}}
        host = self._published(image=build_with_docker(self.client), volumes=mounts)
        host.wait_ready()
        host.run(["sh", "-c", SHARE, "share", str(folder), str(os.getuid())])
        return host

    def remove(self) -> None:
        """Everything that this farm started; called any number of times."""
        for container in self.client.containers.list(all=True, filters={"label": f"{LABEL}={self.id}"}):
            with contextlib.suppress(NotFound):
                if container.status == "paused":
                    container.unpause()
                container.remove(force=True, v=True)
        for network in self._networks:
            with contextlib.suppress(DockerException):
                network.remove()
        for volume in self._volumes:
            with contextlib.suppress(DockerException):
                volume.remove(force=True)
        self._networks.clear()
        self._volumes.clear()
        self._hosts.clear()

    def close(self) -> None:
        """Remove everything and let the engine go."""
        self.remove()
        self.client.close()

    def _published(self, **settings: Any) -> TestHost:
        container = self._container(ports={"22/tcp": ("127.0.0.1", None)}, **settings)
        container.reload()
        port = int(container.ports["22/tcp"][0]["HostPort"])
        self._hosts.append(TestHost(container, container.name, "127.0.0.1", port))
        return self._hosts[-1]

    def _container(self, **settings: Any) -> Any:
        image = settings.pop("image", None) or build(self.client)
        settings["environment"] = {"CLIENT_KEY": self.public_key, **(settings.get("environment") or {})}
        return self.client.containers.run(
            image, detach=True, init=True, name=self._name("host"), labels={LABEL: self.id}, **settings
        )

    def _name(self, what: str) -> str:
        return f"dstack-test-{what}-{self.id}-{uuid.uuid4().hex[:6]}"
