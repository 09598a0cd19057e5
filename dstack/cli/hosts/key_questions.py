"""Questions about unconfirmed keys of hosts."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence

from dstack.adapters.ssh.known_hosts import PublicKey
from dstack.errors import HostKeyError
from dstack.model import Host
from dstack.ui.terminal import clean

MAX_UNCONFIRMED_HOSTS = 16


def confirm_keys(inventory: Sequence[Host], host: Host, fingerprints: Sequence[str]) -> None:
    """Ask about every unconfirmed key on the way to `host`, keep the confirmed keys, and log in.

    `fingerprints` are confirmed without asking. Raises HostKeyError for a key left unconfirmed, HostUnreachableError
    for a host out of reach or without a login.
    """
    asyncio.run(_confirm_keys({str(known.name): known for known in (*inventory, host)}, host, fingerprints))


async def _confirm_keys(inventory: dict[str, Host], host: Host, fingerprints: Sequence[str]) -> None:
    from dstack.adapters.ssh.connections import SshHosts

    async with SshHosts(inventory, note=_note) as connections:
        # A host behind a jump host shows its key only once the key of the jump host is confirmed.
        for _ in range(MAX_UNCONFIRMED_HOSTS):
            unknown = await connections.scan_key(host)
            if not unknown:
                return
            for key in unknown:
                if fingerprints and key.fingerprint not in fingerprints:
                    raise HostKeyError(
                        clean(f"{key.host} shows the key {key.fingerprint}, not {' or '.join(fingerprints)}"),
                        hint="look at its key on the host itself before you trust it; nothing was sent or written",
                    )
                _decide(key.host, key.key, confirmed=bool(fingerprints))
                connections.confirm(key)
    detail = "too many unconfirmed hosts on the way"
    raise HostKeyError(f"{host.name}: {detail}", hint="look at its jump hosts", detail=detail)


def _decide(host: str, key: PublicKey, *, confirmed: bool) -> None:
    """Return for a confirmed key, raise HostKeyError for every other key."""
    if confirmed:
        return
    key_text = clean(f"{host} shows the key {key.algorithm} {key.fingerprint}")
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise HostKeyError(
            f"{key_text}, which nobody confirmed",
            hint=f"compare it with `ssh-keygen -lf` on the host, then: dstack hosts add … --yes {key.fingerprint}",
        )
    sys.stderr.write(f"{key_text}\n  on the host: ssh-keygen -lf /etc/ssh/ssh_host_{_kind(key.algorithm)}_key.pub\n")
    # The event loop would keep Ctrl-C for later, and this waits in the middle of it: from before the question is seen.
    old_handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.stderr.write("Is this the key of that host? [y/N] ")
        sys.stderr.flush()
        answer = sys.stdin.readline()
    finally:
        signal.signal(signal.SIGINT, old_handler)
    if answer.strip().lower() not in ("y", "yes"):
        detail = "its key was not confirmed"
        raise HostKeyError(f"{host}: {detail}", hint="nothing was sent and nothing was written", detail=detail)


def _kind(algorithm: str) -> str:
    return next((kind for kind in ("ed25519", "ecdsa", "rsa") if kind in algorithm), "*")


def _note(text: str) -> None:
    sys.stderr.write(clean(text) + "\n")
