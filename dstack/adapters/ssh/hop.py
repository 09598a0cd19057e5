"""One hop: a verified, authenticated connection, or an error with the failure, the hop, and the next step.

The only module with calls of asyncssh.connect. Every connection gets the judgement of dstack's own reading of
known_hosts files, and no switch turns the judgement off.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import logging
import random
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import asyncssh
from asyncssh.encryption import get_default_encryption_algs, get_encryption_algs
from asyncssh.kex import get_default_kex_algs, get_kex_algs
from asyncssh.mac import get_default_mac_algs, get_mac_algs
from asyncssh.public_key import get_default_certificate_algs, get_default_public_key_algs, get_public_key_algs

from dstack.adapters.ssh.config import Hop
from dstack.adapters.ssh.known_hosts import (
    KnownHosts,
    KnownHostsEntry,
    PublicKey,
    RevokedKeyError,
    ScannedKey,
    Trust,
    Verdict,
    host_key_error,
    known_name,
)
from dstack.adapters.ssh.user_keys import Identities, load_identities
from dstack.errors import DstackError, HostKeyError, HostUnreachableError

KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_COUNT = 3
"""A dead connection is noticed within (count + 1) × interval seconds."""
FAST_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
CONNECT_ATTEMPTS = 7
"""Tries against a host that hangs up before its banner: sshd's MaxStartups looks like this."""
FIRST_RETRY_PAUSE_S, LONGEST_RETRY_PAUSE_S = 0.5, 4.0
"""Seconds; the pause before a further try is random, up to a bound doubled each time."""
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)

# Checking an RSA key's primes on load costs 200 ms each and proves nothing of the user's own key.
asyncssh.set_default_skip_rsa_key_validation(True)
# Without a handler Python would print the library's warnings into the user's terminal.
logging.getLogger("asyncssh").addHandler(logging.NullHandler())


class Connection:
    """An open connection to one hop, with the local process of its ProxyCommand if any."""

    def __init__(self, ssh: asyncssh.SSHClientConnection, proxy: subprocess.Popen[bytes] | None) -> None:
        self.ssh = ssh
        self._proxy = proxy

    @property
    def open(self) -> bool:
        return not self.ssh.is_closed()

    async def close(self) -> None:
        """Close, waiting a little for the host's goodbye, and end the ProxyCommand."""
        self.ssh.close()
        try:
            async with asyncio.timeout(2):
                await self.ssh.wait_closed()
        except TimeoutError:
            self.ssh.abort()
        _end_proxy(self._proxy)


async def connect(hop: Hop, before: Connection | None, home: Path, *, target: str) -> Connection:
    """Open, verify and authenticate one hop, through the connection `before`, or directly with None.

    `target` is the host at the end of the chain, named in errors beside the hop. Nothing but the key exchange is sent
    before the host key was judged CONFIRMED. Tries again, with random pauses, when the host hangs up before its banner.
    Raises UnknownKeyError, ChangedKeyError or RevokedKeyError, or HostUnreachableError.
    """
    identities = load_identities(hop, home)
    known = KnownHosts.read(hop.known_hosts)
    pause = FIRST_RETRY_PAUSE_S
    for attempt in range(1, CONNECT_ATTEMPTS + 1):
        client = _Client(hop, known)
        try:
            return await _open(hop, before, client, identities)
        except (asyncssh.Error, OSError, ValueError, TimeoutError) as error:
            if attempt == CONNECT_ATTEMPTS or not client.hung_up(error):
                raise _explain(error, hop, client, identities, target) from None
        # Random: several commands are refused by the same full queue of the server.
        await asyncio.sleep(random.uniform(0.1, pause))
        pause = min(2 * pause, LONGEST_RETRY_PAUSE_S)
    raise AssertionError("the last attempt returns or raises")


def hasten(connection: asyncssh.SSHClientConnection) -> None:
    """Ask the kernel to acknowledge at once, where possible: saves 40 ms before the first answer of a new channel."""
    plug = connection.get_extra_info("socket")
    if plug is not None and _QUICKACK is not None and plug.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            plug.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)


class _Client(asyncssh.SSHClient):
    """Judges and remembers a host's key, and sees how far a connection came."""

    def __init__(self, hop: Hop, known: KnownHosts) -> None:
        self._hop = hop
        self.known = known
        self.shown: PublicKey | None = None
        self.verdict: Verdict | None = None
        self.foreign_authority: PublicKey | None = None
        self._connection: asyncssh.SSHClientConnection | None = None

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._connection = conn
        hasten(conn)

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.shown = _public(key)
        self.verdict = self.known.judge(self._hop.known_name, self._hop.known_port, self.shown)
        return self.verdict.trust is Trust.CONFIRMED

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.foreign_authority = _public(key)
        return False

    def hung_up(self, error: Exception) -> bool:
        """Whether the host took the connection and closed the connection before its banner."""
        if self._connection is None or not isinstance(error, (asyncssh.ConnectionLost, ConnectionError)):
            return False
        return self._connection.get_extra_info("server_version") is None

    @property
    def accepted_methods(self) -> str:
        return ", ".join(self._connection.get_server_auth_methods()) if self._connection else ""


async def _open(hop: Hop, before: Connection | None, client: _Client, identities: Identities) -> Connection:
    proxy, plug = _start_proxy(hop)
    try:
        ssh = await asyncssh.connect(
            hop.address,
            hop.port,
            tunnel=before.ssh if before else (),
            sock=plug,
            family=hop.family,
            local_addr=(hop.bind_address, 0) if hop.bind_address else (),
            config=None,
            options=_options(hop, client, identities),
        )
        return Connection(ssh, proxy)
    except BaseException:
        if plug is not None:
            plug.close()
        _end_proxy(proxy)
        raise


def _options(hop: Hop, client: _Client, identities: Identities) -> asyncssh.SSHClientConnectionOptions:
    """All rights and limits of a connection. `config=None`: asyncssh itself reads no configuration."""
    known, name, port = client.known, hop.known_name, hop.known_port
    confirmed, authorities = known.confirmed(name, port), known.authorities(name, port)
    trusted = (_keys(confirmed), _keys(authorities), _keys(known.revoked(name, port)))
    return asyncssh.SSHClientConnectionOptions(
        config=None,
        client_factory=lambda: client,
        known_hosts=lambda host, address, port: trusted,
        host_key_alias=name,
        server_host_key_algs=_host_key_algorithms(hop, confirmed, bool(authorities)),
        x509_trusted_certs=None,
        username=hop.user,
        client_keys=identities.pairs,
        agent_path=identities.agent,
        agent_identities=identities.agent_keys,
        # Nothing of the user goes along: a host could use a forwarded agent to log in elsewhere.
        agent_forwarding=False,
        preferred_auth="publickey",
        gss_host=None,
        x11_forwarding=False,
        send_env=None,
        env=None,
        encryption_algs=_choose(hop.ciphers, get_encryption_algs(), _fast_first()),
        kex_algs=_choose(hop.kex, get_kex_algs(), get_default_kex_algs()),
        mac_algs=_choose(hop.macs, get_mac_algs(), get_default_mac_algs()),
        compression_algs=["zlib@openssh.com", "none"] if hop.compression else ["none"],
        connect_timeout=hop.timeout,
        login_timeout=hop.timeout,
        keepalive_interval=KEEPALIVE_INTERVAL_S,
        keepalive_count_max=KEEPALIVE_COUNT,
        tcp_keepalive=True,
    )


def _host_key_algorithms(hop: Hop, confirmed: Sequence[KnownHostsEntry], certificates: bool) -> list[str]:
    """Algorithms of confirmed keys first, so that a host with several keys shows the key known to people."""
    known = {entry.key.algorithm for entry in confirmed}
    plain = _choose(hop.host_key_algorithms, get_public_key_algs(), get_default_public_key_algs())
    first = [name for name in plain if _key_type(name) in known]
    rest = [name for name in plain if name not in first]
    before = [name.decode("ascii") for name in get_default_certificate_algs()] if certificates else []
    return [*before, *first, *rest]


def _key_type(algorithm: str) -> str:
    return "ssh-rsa" if algorithm.startswith("rsa-sha2-") else algorithm


def _fast_first() -> list[bytes]:
    fast = [name.encode("ascii") for name in FAST_CIPHERS]
    return [*fast, *(name for name in get_default_encryption_algs() if name not in fast)]


def _choose(wish: str | None, supported: Sequence[bytes], default: Sequence[bytes]) -> list[str]:
    """Algorithms by OpenSSH's grammar: a list, or a list after + (add), - (remove) or ^ (put first)."""
    usual, able = [name.decode("ascii") for name in default], [name.decode("ascii") for name in supported]
    if not wish:
        return usual
    sign, patterns = (wish[0], wish[1:]) if wish[0] in "+-^" else ("", wish)
    named = [name for pattern in patterns.split(",") for name in able if fnmatch.fnmatchcase(name, pattern.strip())]
    chosen = {
        "": named,
        "+": [*usual, *named],
        "-": [name for name in usual if name not in named],
        "^": [*named, *usual],
    }[sign]
    return list(dict.fromkeys(chosen)) or usual


def _keys(entries: Sequence[KnownHostsEntry]) -> list[asyncssh.SSHKey]:
    found = []
    for entry in entries:
        # A key type that asyncssh does not know cannot be shown to it either.
        with contextlib.suppress(asyncssh.KeyImportError):
            found.append(asyncssh.import_public_key(entry.key.text))
    return found


def _public(key: asyncssh.SSHKey) -> PublicKey:
    return PublicKey(algorithm=key.algorithm.decode("ascii"), blob=key.public_data)


def _start_proxy(hop: Hop) -> tuple[subprocess.Popen[bytes] | None, socket.socket | None]:
    """The user's ProxyCommand on one end of a socket pair, started as OpenSSH does, without stderr."""
    if hop.proxy_command is None:
        return None, None
    # A socket pair instead of pipes: asyncio then reads and writes like on any connection.
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {hop.proxy_command}"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    ours.setblocking(False)
    return process, ours


def _end_proxy(process: subprocess.Popen[bytes] | None) -> None:
    if process is None:
        return
    process.terminate()
    try:
        process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _explain(error: Exception, hop: Hop, client: _Client, identities: Identities, target: str) -> DstackError:
    """An error of dstack's for any error of asyncssh or the system; no other error passes."""
    if client.verdict is not None and client.shown is not None and client.verdict.trust is not Trust.CONFIRMED:
        name = known_name(hop.known_name, hop.known_port)
        return host_key_error(client.verdict, ScannedKey(host=hop.label, name=name, key=client.shown))
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return _refused_key_error(error, hop, client)
    what, hint = _describe(error, hop, client, identities)
    where = "" if hop.label == target else f"its jump host {hop}: "
    return HostUnreachableError(target, f"{where}{what}", hint=hint)


def _refused_key_error(error: asyncssh.HostKeyNotVerifiable, hop: Hop, client: _Client) -> HostKeyError:
    """The error for a key or certificate refused by asyncssh before our judgement."""
    reason = str(error.reason).split(" for host ")[0]
    hint = "ask who runs the host; nothing was sent to it"
    revoked = client.known.revoked(hop.known_name, hop.known_port)
    if revoked and "revoked" in reason:
        places = ", ".join(f"{entry.place} ({entry.key.fingerprint})" for entry in revoked[:3])
        return RevokedKeyError(f"{hop.label} shows a key that was REVOKED at {places}", hint=hint)
    if client.foreign_authority is not None:
        reason = f"its certificate is signed by {client.foreign_authority.fingerprint}, which nobody confirmed"
    return HostKeyError(f"the key of {hop.label} is refused: {reason}", hint=hint)


def _describe(error: Exception, hop: Hop, client: _Client, identities: Identities) -> tuple[str, str | None]:
    """The failure and the next step, for everything but host keys."""
    if isinstance(error, asyncssh.PermissionDenied):
        return _describe_denial(hop, client, identities)
    if isinstance(error, TimeoutError) or "timeout" in str(error).lower():
        return f"no answer from {hop.address} port {hop.port} within {hop.timeout:g} s", "is the host up and reachable?"
    if isinstance(error, socket.gaierror):
        return f"the name {hop.address} is not known", "look at address: in hosts.yaml or HostName in ~/.ssh/config"
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens at {hop.address} port {hop.port}", "does sshd run there? is the port right?"
    if isinstance(error, asyncssh.ChannelOpenError):
        return f"the jump host before it cannot reach {hop.address} port {hop.port}: {error.reason}", None
    if client.hung_up(error):
        return (
            f"{hop.address} port {hop.port} hangs up before it says who it is, {CONNECT_ATTEMPTS} times",
            "is that an SSH server? it may be refusing new connections (MaxStartups)",
        )
    if isinstance(error, asyncssh.KeyExchangeFailed):
        return f"no way to agree on encryption: {error.reason}", "see KexAlgorithms and Ciphers in ~/.ssh/config"
    text = getattr(error, "reason", "") or getattr(error, "strerror", "") or str(error) or type(error).__name__
    return f"cannot connect to {hop.address} port {hop.port}: {text}", None


def _describe_denial(hop: Hop, client: _Client, identities: Identities) -> tuple[str, str]:
    what = f"{hop.user} is not let in at {hop.address} port {hop.port}"
    if identities.problems:
        return f"{what}: {'; '.join(identities.problems)}", "dstack asks for no passphrase; add the key to an agent"
    if identities.is_empty:
        return f"{what}: there is no key to offer", "make one with ssh-keygen, or set identity-file: in hosts.yaml"
    methods = client.accepted_methods
    hint = f"add your public key to ~{hop.user}/.ssh/authorized_keys there"
    return f"{what}: none of your keys is accepted", f"{hint} (the host accepts: {methods})" if methods else hint
