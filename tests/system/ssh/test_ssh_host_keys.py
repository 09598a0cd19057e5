"""Host keys: which are believed, which are refused, and with which words. Nothing goes to a host before that."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dstack.adapters.ssh.known_hosts import ChangedKeyError, RevokedKeyError, UnknownKeyError
from dstack.errors import HostKeyError
from tests.support.hosts.dialling import Seen, greet, hosts, named
from tests.support.hosts.farm import TestHost
from tests.support.hosts.home import Home, make_key

pytestmark = pytest.mark.timeout(120)


def _name(host: TestHost) -> str:
    return host.known_hosts_line().split()[0]


def _other_key(home: Home) -> str:
    return " ".join(make_key(home.path / "other").public.split()[:2])


def _nothing(home: Home, host: TestHost) -> list[str]:
    return []


def _no_file(home: Home, host: TestHost) -> list[str]:
    return [f"UserKnownHostsFile {home.path}/absent"]


def _none(home: Home, host: TestHost) -> list[str]:
    home.trust(host)
    return ["UserKnownHostsFile none"]


def _accept_new(home: Home, host: TestHost) -> list[str]:
    return ["StrictHostKeyChecking accept-new"]


def _strict_no(home: Home, host: TestHost) -> list[str]:
    return ["StrictHostKeyChecking no", "UserKnownHostsFile /dev/null"]


def _with_port(home: Home, host: TestHost) -> list[str]:
    home.trust(host)
    return []


def _hashed(home: Home, host: TestHost) -> list[str]:
    home.trust(host)
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", home.known_hosts], check=True, capture_output=True)
    assert host.address not in home.known_hosts.read_text()
    return []


def _bare_name(home: Home, host: TestHost) -> list[str]:
    _append(home, f"{host.address} {host.host_key()}")
    return []


def _missing_beside(home: Home, host: TestHost) -> list[str]:
    home.trust(host)
    return [f"UserKnownHostsFile {home.path}/absent ~/.ssh/known_hosts"]


def _garbage(home: Home, host: TestHost) -> list[str]:
    _append(home, "\x00\xff nonsense\n@odd x y z\nhost ssh-ed25519 !!!\n|1|bad")
    home.trust(host)
    return []


def _alias(home: Home, host: TestHost) -> list[str]:
    _append(home, f"the-alias {host.host_key()}")
    return ["HostKeyAlias the-alias"]


def _changed(home: Home, host: TestHost) -> list[str]:
    _append(home, f"{_name(host)} {_other_key(home)}")
    return []


def _revoked(home: Home, host: TestHost) -> list[str]:
    home.trust(host)
    _append(home, f"@revoked * {host.host_key()}")
    return []


def _authority(home: Home, host: TestHost) -> list[str]:
    _append(home, f"@cert-authority * {_other_key(home)}")
    return []


def _append(home: Home, text: str) -> None:
    with home.known_hosts.open("a", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(text + "\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    lay: Callable[[Home, TestHost], list[str]]
    refused: type[HostKeyError] | None = None
    words: str = ""
    note: str = ""


CASES = {
    "unknown": Case(lay=_nothing, refused=UnknownKeyError, words="nobody confirmed the key of"),
    "no known_hosts file": Case(lay=_no_file, refused=UnknownKeyError, words="nobody confirmed the key of"),
    "UserKnownHostsFile none": Case(lay=_none, refused=UnknownKeyError, words="nobody confirmed the key of"),
    "accept-new": Case(
        lay=_accept_new, refused=UnknownKeyError, words="nobody", note="StrictHostKeyChecking accept-new"
    ),
    "strict no": Case(lay=_strict_no, refused=UnknownKeyError, words="nobody", note="StrictHostKeyChecking no"),
    "changed": Case(lay=_changed, refused=ChangedKeyError, words="has CHANGED"),
    "revoked": Case(lay=_revoked, refused=RevokedKeyError, words="REVOKED"),
    "authority, plain key": Case(lay=_authority, refused=UnknownKeyError, words="asks for a certificate"),
    "confirmed": Case(lay=_with_port),
    "hashed": Case(lay=_hashed),
    "bare name": Case(lay=_bare_name),
    "missing file beside": Case(lay=_missing_beside),
    "garbage lines": Case(lay=_garbage),
    "alias": Case(lay=_alias),
}


@pytest.mark.parametrize("place", ["direct", "the jump host", "behind the jump host"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_every_hop_is_verified(
    case: Case, place: str, shared_host: TestHost, shared_pair: tuple[TestHost, TestHost], ssh_home: Home
) -> None:
    """A key is believed only when it was confirmed, wherever in a chain its host stands."""
    jump, inner = shared_pair
    judged = {"direct": shared_host, "the jump host": jump, "behind the jump host": inner}[place]
    # The files that a case makes come first: hashing them must not touch what the other hop needs.
    extra = case.lay(ssh_home, judged)
    if place == "direct":
        ssh_home.add("target", shared_host, *extra)
    else:
        ssh_home.trust(inner if judged is jump else jump)
        ssh_home.add("gate", jump, *(extra if judged is jump else []))
        ssh_home.add("target", inner, "ProxyJump gate", *(extra if judged is inner else []))
    last = shared_host if place == "direct" else inner
    before = judged.sshd_log().count("Accepted publickey"), last.sessions()
    seen = Seen()
    if case.refused is None:
        assert b"word" in asyncio.run(greet("target", seen))
        return
    with pytest.raises(case.refused) as refusal:
        asyncio.run(greet("target", seen))
    assert case.words in str(refusal.value)
    assert "gate" in str(refusal.value) if judged is jump else "target" in str(refusal.value)
    assert refusal.value.exit_code == 4
    assert not case.note or any(case.note in note for note in seen.notes)
    # The judge: sshd saw nobody log in, and started nothing.
    assert (judged.sshd_log().count("Accepted publickey"), last.sessions()) == before


def test_a_changed_key_is_refused_in_its_own_words(ssh_host: TestHost, ssh_home: Home) -> None:
    """After the host's key was swapped nothing is sent, and the message has both fingerprints and the line."""
    ssh_home.add("gpu", ssh_host)
    ssh_home.trust(ssh_host)
    assert b"word" in asyncio.run(greet("gpu"))
    old, before = _fingerprint(ssh_host), ssh_host.sessions()
    ssh_host.swap_host_key()
    with pytest.raises(ChangedKeyError) as refusal:
        asyncio.run(greet("gpu"))
    message = str(refusal.value)
    for part in ("gpu", "CHANGED", old, _fingerprint(ssh_host), f"{ssh_home.known_hosts}:1"):
        assert part in message
    log = ssh_host.sshd_log().split("Received SIGHUP")[1]
    assert ssh_host.sessions() == before
    assert "Accepted" not in log
    assert "Postponed" not in log


def test_first_contact_shows_the_key_and_confirming_it_lets_in(
    shared_pair: tuple[TestHost, TestHost], ssh_home: Home
) -> None:
    """scan_key gives the unconfirmed hops one after the other; confirmed, they are never asked of again."""
    jump, inner = shared_pair
    ssh_home.add("gate", jump)
    ssh_home.add("inner", inner, "ProxyJump gate")

    async def confirm_all() -> list[tuple[str, str]]:
        found = []
        async with hosts() as opened:
            while keys := await opened.scan_key(named("inner")):
                found += [(key.host, key.fingerprint) for key in keys]
                opened.confirm(keys[0])
        return found

    assert asyncio.run(confirm_all()) == [("gate", _fingerprint(jump)), ("inner", _fingerprint(inner))]
    assert ssh_home.known_hosts.read_text() == ""
    assert ssh_home.confirmed.stat().st_mode & 0o777 == 0o600
    assert asyncio.run(confirm_all()) == []
    assert b"word" in asyncio.run(greet("inner"))


def test_a_scan_never_offers_a_changed_key(shared_host: TestHost, ssh_home: Home) -> None:
    """What is CHANGED cannot be confirmed by the way of first contact."""
    ssh_home.add("gpu", shared_host)
    _changed(ssh_home, shared_host)

    async def scan() -> None:
        async with hosts() as opened:
            await opened.scan_key(named("gpu"))

    with pytest.raises(ChangedKeyError):
        asyncio.run(scan())


@pytest.mark.parametrize("revoked", [False, True])
def test_a_certificate_of_a_trusted_authority_is_believed(
    revoked: bool, ssh_host: TestHost, ssh_home: Home, tmp_path: Path
) -> None:
    """A host certificate is enough, unless its authority was revoked."""
    authority = make_key(tmp_path / "ca")
    (tmp_path / "host.pub").write_text(ssh_host.host_key() + "\n")
    public = str(tmp_path / "host.pub")
    sign = ["ssh-keygen", "-q", "-s", str(authority.file), "-I", "host", "-h", "-n", "127.0.0.1", public]
    subprocess.run(sign, check=True)
    ssh_host.write("/etc/ssh/cert.pub", (tmp_path / "host-cert.pub").read_bytes(), user="root")
    ssh_host.configure("HostCertificate /etc/ssh/cert.pub")
    ssh_home.add("gpu", ssh_host)
    key = " ".join(authority.public.split()[:2])
    _append(ssh_home, f"@cert-authority 127.0.0.1,[127.0.0.1]:* {key}")
    if not revoked:
        assert b"word" in asyncio.run(greet("gpu"))
        return
    _append(ssh_home, f"@revoked * {key}")
    with pytest.raises(HostKeyError):
        asyncio.run(greet("gpu"))
    assert ssh_host.sessions() == 0


def test_a_revoked_key_is_named_so(shared_host: TestHost, ssh_home: Home) -> None:
    """The error for a revoked key is a RevokedKeyError with the line that says so."""
    ssh_home.add("gpu", shared_host)
    _revoked(ssh_home, shared_host)
    with pytest.raises(RevokedKeyError, match=r"known_hosts:2"):
        asyncio.run(greet("gpu"))


def _fingerprint(host: TestHost) -> str:
    told = host.run(["ssh-keygen", "-l", "-f", "/etc/ssh/ssh_host_ed25519_key.pub"])
    return told.decode().split()[1]
