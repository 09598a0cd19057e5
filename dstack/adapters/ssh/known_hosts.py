"""Which host keys people have confirmed: OpenSSH's known_hosts files, read and judged by ourselves.

asyncssh says the same of an unknown and of a changed key, so the judgement is made here, by comparing bytes.
Standard library only: importing this module costs nothing.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from dstack.errors import HostKeyError
from dstack.private_folder import make_folder, open_file

DEFAULT_PORT = 22
KNOWN_HOSTS_LIMIT_BYTES = 16 << 20
"""Bytes read of a known_hosts file; lines behind are not seen, which can only refuse a key."""


class Trust(Enum):
    """The files' judgement of one key shown by a host."""

    CONFIRMED = "confirmed"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    """Other keys of this host are confirmed, but not this key."""
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A public key in SSH's own encoding."""

    algorithm: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """`SHA256:…`, in the form of ssh-keygen -l."""
        digest = hashlib.sha256(self.blob).digest()
        return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")

    @property
    def text(self) -> str:
        """`<algorithm> <base64>`, the form of known_hosts and .pub files."""
        return f"{self.algorithm} {base64.b64encode(self.blob).decode('ascii')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownHostsEntry:
    """One line of a known_hosts file. `marker` is "", "cert-authority" or "revoked"; lines count from 1."""

    file: str
    line: int
    marker: str
    patterns: str
    key: PublicKey

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"

    def matches(self, name: str) -> bool:
        """Whether the line is about `name` (`host` or `[host]:port`), by hash, pattern or plain name."""
        if self.patterns.startswith("|"):
            return _hash_matches(self.patterns, name)
        return _patterns_match(self.patterns, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The judgement of one key, and the lines behind the judgement: for UNKNOWN the certificate authorities."""

    trust: Trust
    entries: tuple[KnownHostsEntry, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedKey:
    """An unconfirmed key shown by a host.

    `host` is the name for people, `name` the name in known_hosts files (`host` or `[host]:port`).
    """

    host: str
    name: str
    key: PublicKey

    @property
    def fingerprint(self) -> str:
        return self.key.fingerprint


class UnknownKeyError(HostKeyError):
    """The key of a host is not confirmed. `scanned` is the shown key."""

    def __init__(self, scanned: ScannedKey, authority: KnownHostsEntry | None = None) -> None:
        self.scanned = scanned
        asked = f"; {authority.place} asks for a certificate, and the host has none" if authority else ""
        super().__init__(
            f"nobody confirmed the key of {scanned.host}: {scanned.key.algorithm} {scanned.fingerprint}{asked}",
            hint=f"compare the fingerprint, then confirm it: dstack hosts add {scanned.host}; "
            "dstack hosts check shows all hosts",
        )


class ChangedKeyError(HostKeyError):
    """A host shows another key than the confirmed key."""


class RevokedKeyError(HostKeyError):
    """A host shows a revoked key."""


class KnownHosts:
    """The confirmed, trusted-authority and revoked keys of several known_hosts files."""

    def __init__(self, entries: Iterable[KnownHostsEntry] = ()) -> None:
        self._entries = tuple(entries)

    @classmethod
    def read(cls, files: Iterable[str | Path]) -> KnownHosts:
        """Read files in OpenSSH format; missing and unreadable files count as empty, senseless lines as absent.

        Never raises: an unreadable file confirms nothing.
        """
        return cls(entry for file in files for entry in _read_file(str(file)))

    def confirmed(self, host: str, port: int) -> tuple[KnownHostsEntry, ...]:
        """The plain keys confirmed for host and port and not revoked; for another port than 22 also the keys of the
        bare host name, as OpenSSH does."""
        bad = {entry.key.blob for entry in self.revoked(host, port)}
        found = [entry for name in _names(host, port) for entry in self._about(name, "")]
        return tuple(entry for entry in found if entry.key.blob not in bad)

    def authorities(self, host: str, port: int) -> tuple[KnownHostsEntry, ...]:
        """The keys whose certificates are believed for host and port."""
        bad = {entry.key.blob for entry in self.revoked(host, port)}
        found = [entry for name in _names(host, port) for entry in self._about(name, "cert-authority")]
        return tuple(entry for entry in found if entry.key.blob not in bad)

    def revoked(self, host: str, port: int) -> tuple[KnownHostsEntry, ...]:
        return tuple(entry for name in _names(host, port) for entry in self._about(name, "revoked"))

    def judge(self, host: str, port: int, key: PublicKey) -> Verdict:
        """The files' judgement of a plain `key` shown by `host` at `port`.

        Lines of the bare name confirm a key at another port, but never make a key there a changed key.
        """
        revoked = tuple(entry for entry in self.revoked(host, port) if entry.key.blob == key.blob)
        if revoked:
            return Verdict(trust=Trust.REVOKED, entries=revoked)
        confirmed = tuple(entry for entry in self.confirmed(host, port) if entry.key.blob == key.blob)
        if confirmed:
            return Verdict(trust=Trust.CONFIRMED, entries=confirmed)
        name = known_name(host, port)
        # By the exact name alone: a key of the bare name says nothing of a server at another port.
        others = tuple(self._about(name, ""))
        if others:
            return Verdict(trust=Trust.CHANGED, entries=others)
        return Verdict(trust=Trust.UNKNOWN, entries=self.authorities(host, port))

    def _about(self, name: str, marker: str) -> list[KnownHostsEntry]:
        return [entry for entry in self._entries if entry.marker == marker and entry.matches(name)]


def known_name(host: str, port: int) -> str:
    """How known_hosts files call a host: `host`, or `[host]:port` for another port than 22."""
    host = host.lower()
    return host if port == DEFAULT_PORT else f"[{host}]:{port}"


def host_key_error(verdict: Verdict, scanned: ScannedKey) -> HostKeyError:
    """The error for an unconfirmed key, in its own words for each case."""
    shown = f"{scanned.key.algorithm} {scanned.fingerprint}"
    if verdict.trust is Trust.REVOKED:
        return RevokedKeyError(
            f"{scanned.host} shows a key that was REVOKED at {verdict.entries[0].place}: {shown}",
            hint="the host needs a new key; do not use it before its administrator gave it one",
        )
    if verdict.trust is not Trust.CHANGED:
        return UnknownKeyError(scanned, verdict.entries[0] if verdict.entries else None)
    same = [entry for entry in verdict.entries if entry.key.algorithm == scanned.key.algorithm]
    entry = (same or list(verdict.entries))[0]
    return ChangedKeyError(
        f"the key of {scanned.host} has CHANGED: it shows {shown}, but {entry.place} holds "
        f"{entry.key.algorithm} {entry.key.fingerprint}; someone may be listening in, so nothing was sent",
        hint=f"ask who runs the host; if the new key is right, remove line {entry.line} of {entry.file} "
        f"and confirm it: dstack hosts add {scanned.host}",
    )


def confirm(path: Path, scanned: ScannedKey) -> None:
    """Add a key to the file of confirmed keys at `path`.

    The file is made with mode 0600 (its folder 0700). The line is written whole by one append under a lock, so that no
    reader sees half a line and no other writer's line is lost. A line already there is not repeated.
    """
    make_folder(str(path.parent))
    descriptor = open_file(str(path), os.O_RDWR | os.O_APPEND)
    try:
        # Two `hosts add` at once would both miss the other's line.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        line = f"{scanned.name} {scanned.key.text}".encode()
        held = os.pread(descriptor, KNOWN_HOSTS_LIMIT_BYTES, 0)
        if line in held.splitlines():
            return
        # A file edited by hand may lack its last newline, and two keys on a line are no key.
        start = b"" if not held or held.endswith(b"\n") else b"\n"
        os.write(descriptor, start + line + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def parse_key(algorithm: str, text: str) -> PublicKey | None:
    """A key from its two columns; None for columns without a key, or at odds."""
    try:
        blob = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    length = int.from_bytes(blob[:4], "big")
    if blob[4 : 4 + length] != algorithm.encode("utf-8", "surrogateescape") or len(blob) <= 4 + length:
        return None
    return PublicKey(algorithm=algorithm, blob=blob)


def _read_file(file: str) -> Iterator[KnownHostsEntry]:
    try:
        with open(file, "rb") as stream:
            lines = stream.read(KNOWN_HOSTS_LIMIT_BYTES).split(b"\n")
    except OSError:
        return
    for number, line in enumerate(lines, 1):
        entry = _parse_line(file, number, line.decode("utf-8", "surrogateescape"))
        if entry is not None:
            yield entry


def _parse_line(file: str, number: int, line: str) -> KnownHostsEntry | None:
    columns = line.split()
    if not columns or columns[0].startswith("#"):
        return None
    marker = ""
    if columns[0].startswith("@"):
        marker = columns.pop(0)[1:]
        if marker not in ("cert-authority", "revoked"):
            return None
    if len(columns) < 3:
        return None
    key = parse_key(columns[1], columns[2])
    if key is None:
        return None
    return KnownHostsEntry(file=file, line=number, marker=marker, patterns=columns[0], key=key)


def _names(host: str, port: int) -> tuple[str, ...]:
    name, bare = known_name(host, port), host.lower()
    return (name,) if name == bare else (name, bare)


def _hash_matches(text: str, name: str) -> bool:
    try:
        _, version, salt, digest = text.split("|")
        expected = base64.b64decode(digest, validate=True)
        made = hmac.new(base64.b64decode(salt, validate=True), name.encode("utf-8", "surrogateescape"), "sha1").digest()
    except ValueError:
        return False
    return version == "1" and hmac.compare_digest(made, expected)


def _patterns_match(text: str, name: str) -> bool:
    found = False
    for pattern in text.lower().split(","):
        if pattern.startswith("!"):
            if _wildcard(pattern[1:], name):
                return False
        elif _wildcard(pattern, name):
            found = True
    return found


def _wildcard(pattern: str, name: str) -> bool:
    if "*" not in pattern and "?" not in pattern:
        return pattern == name
    expression = "".join(".*" if sign == "*" else "." if sign == "?" else re.escape(sign) for sign in pattern)
    return re.fullmatch(expression, name, re.DOTALL) is not None
