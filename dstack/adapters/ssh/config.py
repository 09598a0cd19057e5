"""From an inventory entry and ~/.ssh/config to an explicit chain of hops, with nothing left to look up."""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dstack.adapters.ssh.known_hosts import DEFAULT_PORT
from dstack.adapters.ssh.options import Question, ignored_options, read_options
from dstack.errors import UsageError
from dstack.model import Host, HostName

CONNECT_TIMEOUT_S = 15.0
MAX_JUMP_HOPS = 8
SYSTEM_CONFIG = Path("/etc/ssh/ssh_config")
GLOBAL_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
# Names may reach a shell through the user's ProxyCommand; OpenSSH refuses the same signs since 9.6.
_UNSAFE = re.compile(r"[\x00-\x20\x7f'`\"$\\;&<>|(){}]|^-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One SSH connection of a chain.

    `label` is for people. `known_name` and `known_port` are the name in known_hosts files: HostName and port, or
    HostKeyAlias. `identities` None means the default key files; `agent` None means no agent. `identities_only` allows
    the agent only the keys of `identities`. The algorithm fields are in OpenSSH's spelling.
    """

    label: str
    address: str
    port: int
    user: str
    known_name: str
    known_port: int
    known_hosts: tuple[str, ...]
    identities: tuple[str, ...] | None = None
    certificates: tuple[str, ...] = ()
    identities_only: bool = False
    agent: str | None = None
    proxy_command: str | None = None
    family: int = socket.AF_UNSPEC
    bind_address: str | None = None
    timeout: float = CONNECT_TIMEOUT_S
    ciphers: str | None = None
    kex: str | None = None
    macs: str | None = None
    host_key_algorithms: str | None = None
    compression: bool = False

    def __str__(self) -> str:
        return f"{self.label} ({self.address} port {self.port})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The hops to a host, the host itself last, and notes on parts of the SSH configuration not followed."""

    hops: tuple[Hop, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SshSurroundings:
    """What a resolution depends on besides the inventory.

    `confirmed` is dstack's own known_hosts file; `ssh` the OpenSSH client to ask when asyncssh's parser gives up,
    None for none.
    """

    home: Path
    environment: Mapping[str, str]
    confirmed: Path
    system_config: Path | None = SYSTEM_CONFIG
    ssh: str | None = "ssh"

    @classmethod
    def here(cls) -> SshSurroundings:
        """The surroundings of this process: `$HOME`, the environment, `~/.dstack/known_hosts`."""
        home = Path.home()
        return cls(home=home, environment=dict(os.environ), confirmed=home / ".dstack" / "known_hosts")


def resolve(host: Host, inventory: Mapping[str, Host], around: SshSurroundings) -> Route:
    """The chain of hops to `host`.

    `jump` of the inventory goes before ProxyJump and ProxyCommand of ~/.ssh/config, and `none` is a direct connection.
    Raises ConfigError for a senseless ~/.ssh/config, UsageError for an unsafe name, a target unfit as jump host, or
    jumps in a circle.
    """
    resolver = _Resolver(inventory, around)
    hops = resolver.chain(host, ())
    return Route(hops=tuple(hops), notes=tuple(dict.fromkeys(resolver.notes)))


class _Resolver:
    def __init__(self, inventory: Mapping[str, Host], around: SshSurroundings) -> None:
        self._inventory = inventory
        self._around = around
        self.notes: list[str] = []

    def chain(self, host: Host, visited: tuple[str, ...]) -> list[Hop]:
        if host.name in visited or len(visited) >= MAX_JUMP_HOPS:
            raise UsageError(
                f"the jump hosts of {visited[0]} go in a circle: {' -> '.join([*visited, host.name])}",
                hint="look at jump: in hosts.yaml and at ProxyJump in ~/.ssh/config",
            )
        hop, options = self._hop(host)
        jump, command = _proxy_options(host, options)
        if jump is None:
            return [replace(hop, proxy_command=_expand(command, hop, self._around) if command else None)]
        before: list[Hop] = []
        for part in _expand(jump, hop, self._around).split(","):
            target = self._jump_target(part.strip(), host)
            # As in OpenSSH, of several jumps only the first may itself be behind a jump of its own.
            before += self.chain(target, (*visited, host.name)) if not before else [self._hop(target)[0]]
        return [*before, hop]

    def _jump_target(self, text: str, host: Host) -> Host:
        target = self._inventory.get(text)
        if target is not None:
            if target.local:
                raise UsageError(f"{host.name}: its jump host {text} is this machine itself", hint="remove jump:")
            return target
        found = re.fullmatch(r"(?:ssh://)?(?:([^/]+)@)?(\[[^\]]+\]|[^:@/\[\]]+)(?::(\d{1,5}))?/?", text)
        if not found:
            hint = "name a host of hosts.yaml, or write user@address:port"
            raise UsageError(f"{host.name}: {text!r} is no jump host", hint=hint)
        user, address, port = found.groups()
        address = address.strip("[]")
        return Host(name=HostName(address), address=address, user=user, port=int(port) if port else None)

    def _hop(self, host: Host) -> tuple[Hop, dict[str, Any]]:
        """The hop of one host, without the hops before, and its options."""
        alias = host.address or host.name
        _check(host, "address", alias)
        _check(host, "user", host.user or "")
        question = Question(name=alias, user=host.user, port=host.port)
        around = self._around
        options = read_options(around.home, around.system_config, question, around.ssh)
        self.notes += [f"{host.name}: {note}" for note in ignored_options(options)]
        address = str(options.get("hostname") or alias)
        port = int(options.get("port") or DEFAULT_PORT)
        user = str(options.get("user") or getpass.getuser())
        # Once more: the file may give other names, and they may reach the shell of a ProxyCommand.
        _check(host, "HostName", address)
        _check(host, "User", user)
        bare = Hop(
            label=host.name, address=address, port=port, user=user, known_name=address, known_port=port, known_hosts=()
        )
        return self._complete(bare, host, options), options

    def _complete(self, hop: Hop, host: Host, options: Mapping[str, Any]) -> Hop:
        around = self._around
        files = options.get("identityfile")
        if host.identity_file is not None:
            files = [host.identity_file]
        alias = options.get("hostkeyalias")
        timeout = options.get("connecttimeout")
        return replace(
            hop,
            # HostKeyAlias stands for host and port, as in OpenSSH.
            known_name=str(alias) if alias else hop.address,
            known_port=DEFAULT_PORT if alias else hop.port,
            known_hosts=_known_hosts(hop, options, around),
            identities=None if files is None else tuple(_path(str(file), hop, around) for file in files),
            certificates=tuple(_path(str(file), hop, around) for file in options.get("certificatefile") or ()),
            identities_only=host.identity_file is not None or bool(options.get("identitiesonly")),
            agent=_agent(hop, options, around),
            family=_family(options.get("addressfamily")),
            bind_address=options.get("bindaddress"),
            timeout=float(timeout) if timeout else CONNECT_TIMEOUT_S,
            ciphers=options.get("ciphers"),
            kex=options.get("kexalgorithms"),
            macs=options.get("macs"),
            host_key_algorithms=options.get("hostkeyalgorithms"),
            compression=bool(options.get("compression")),
        )


def _proxy_options(host: Host, options: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The first ProxyJump or ProxyCommand in force for a host; the other is None."""
    if host.jump is not None:
        return (None if host.jump.lower() == "none" else host.jump), None
    for name in options:
        if name == "proxyjump":
            return options[name], None
        if name == "proxycommand":
            return None, options[name]
    return None, None


def _known_hosts(hop: Hop, options: Mapping[str, Any], around: SshSurroundings) -> tuple[str, ...]:
    """dstack's own file first. `UserKnownHostsFile none` is an empty list and nothing else."""
    ssh = around.home / ".ssh"
    user = options.get("userknownhostsfile", [str(ssh / "known_hosts"), str(ssh / "known_hosts2")])
    system = options.get("globalknownhostsfile", GLOBAL_KNOWN_HOSTS)
    named = [_path(str(file), hop, around) for file in (*user, *system)]
    return (str(around.confirmed), *named)


def _agent(hop: Hop, options: Mapping[str, Any], around: SshSurroundings) -> str | None:
    if "identityagent" not in options:
        return around.environment.get("SSH_AUTH_SOCK") or None
    named = options["identityagent"]
    if named is None:
        return None
    if named == "SSH_AUTH_SOCK":
        return around.environment.get("SSH_AUTH_SOCK") or None
    if re.fullmatch(r"\$\w+", named):
        return around.environment.get(named[1:]) or None
    return _path(named, hop, around)


def _family(value: Any) -> int:
    # asyncssh's parser gives the constant, `ssh -G` the word.
    return value if isinstance(value, int) else _FAMILIES.get(str(value), socket.AF_UNSPEC)


def _path(text: str, hop: Hop, around: SshSurroundings) -> str:
    expanded = _expand(text, hop, around)
    if expanded == "~" or expanded.startswith("~/"):
        expanded = str(around.home) + expanded[1:]
    return os.path.expanduser(expanded)


def _expand(text: str, hop: Hop, around: SshSurroundings) -> str:
    """Put in OpenSSH's %-tokens and ${NAME}; unknown tokens stay unchanged."""
    tokens: Mapping[str, str] = {
        "%": "%",
        "d": str(around.home),
        "h": hop.address,
        "n": hop.label,
        "p": str(hop.port),
        "r": hop.user,
        "u": getpass.getuser(),
        "i": str(os.getuid()),
    }
    text = re.sub(r"\$\{(\w+)\}", lambda found: around.environment.get(found[1], found[0]), text)
    return re.sub(r"%(.)", lambda found: tokens.get(found[1], found[0]), text)


def _check(host: Host, what: str, text: str) -> None:
    if _UNSAFE.search(text):
        raise UsageError(
            f"{host.name}: {what} {text!r} has signs that no host or user name has",
            hint="look at hosts.yaml and ~/.ssh/config",
        )
