"""known_hosts files: read as OpenSSH reads them, judged without asyncssh."""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.adapters.ssh.known_hosts import (
    ChangedKeyError,
    KnownHosts,
    PublicKey,
    RevokedKeyError,
    ScannedKey,
    Trust,
    UnknownKeyError,
    confirm,
    host_key_error,
    known_name,
    parse_key,
)
from tests.lacking import missing


def _key(number: int, algorithm: str = "ssh-ed25519") -> PublicKey:
    name = algorithm.encode()
    return PublicKey(
        algorithm=algorithm, blob=len(name).to_bytes(4, "big") + name + (32).to_bytes(4, "big") + bytes([number]) * 32
    )


A, B = _key(1), _key(2)
ECDSA = _key(3, "ecdsa-sha2-nistp256")


def _known(tmp_path: Path, *lines: str) -> KnownHosts:
    file = tmp_path / "known_hosts"
    file.write_text("\n".join(lines) + "\n")
    return KnownHosts.read([file])


@pytest.mark.parametrize(
    ("line", "host", "port", "trust"),
    [
        (f"h {A.text}", "h", 22, Trust.CONFIRMED),
        (f"h {A.text} a comment", "h", 22, Trust.CONFIRMED),
        (f"H {A.text}", "h", 22, Trust.CONFIRMED),
        (f"h {A.text}", "H", 22, Trust.CONFIRMED),
        (f"x,h,y {A.text}", "h", 22, Trust.CONFIRMED),
        (f"*.lab {A.text}", "n1.lab", 22, Trust.CONFIRMED),
        (f"*.lab,!n1.lab {A.text}", "n1.lab", 22, Trust.UNKNOWN),
        (f"h? {A.text}", "h1", 22, Trust.CONFIRMED),
        (f"h.x {A.text}", "hax", 22, Trust.UNKNOWN),
        (f"[h]:2222 {A.text}", "h", 2222, Trust.CONFIRMED),
        (f"[h]:2222 {A.text}", "h", 22, Trust.UNKNOWN),
        (f"h {A.text}", "h", 2222, Trust.CONFIRMED),
        (f"h {B.text}", "h", 2222, Trust.UNKNOWN),
        (f"[h]:2222 {B.text}", "h", 2222, Trust.CHANGED),
        (f"h {B.text}", "h", 22, Trust.CHANGED),
        (f"h {ECDSA.text}", "h", 22, Trust.CHANGED),
        (f"@revoked h {A.text}", "h", 22, Trust.REVOKED),
        (f"@revoked * {A.text}", "h", 2222, Trust.REVOKED),
        (f"@revoked h {B.text}", "h", 22, Trust.UNKNOWN),
        (f"@cert-authority h {A.text}", "h", 22, Trust.UNKNOWN),
        (f"@odd h {A.text}", "h", 22, Trust.UNKNOWN),
        (f"# h {A.text}", "h", 22, Trust.UNKNOWN),
        (f"h ssh-rsa {A.text.split()[1]}", "h", 22, Trust.UNKNOWN),
        ("h ssh-ed25519 !!!", "h", 22, Trust.UNKNOWN),
        ("|1|bad", "h", 22, Trust.UNKNOWN),
        ("", "h", 22, Trust.UNKNOWN),
    ],
)
def test_one_line_is_judged_as_openssh_would(line: str, host: str, port: int, trust: Trust, tmp_path: Path) -> None:
    """Names, ports, patterns, negation, markers and rubbish each have their one meaning for a shown key."""
    assert _known(tmp_path, line).judge(host, port, A).trust is trust


def test_a_revocation_wins_over_a_confirmation(tmp_path: Path) -> None:
    """In whichever order the lines stand, a revoked key is not among the confirmed ones."""
    for lines in ((f"h {A.text}", f"@revoked h {A.text}"), (f"@revoked * {A.text}", f"h {A.text}")):
        known = _known(tmp_path, *lines)
        assert known.judge("h", 22, A).trust is Trust.REVOKED
        assert known.confirmed("h", 22) == ()


def test_a_second_confirmed_key_is_no_change(tmp_path: Path) -> None:
    """A host may have several keys; any of them is believed, and the older line does no harm."""
    known = _known(tmp_path, f"h {A.text}", f"h {B.text}")
    assert known.judge("h", 22, A).trust is known.judge("h", 22, B).trust is Trust.CONFIRMED


@pytest.fixture
def ssh_keygen() -> None:
    if shutil.which("ssh-keygen") is None:
        missing("openssh", "there is no ssh-keygen")


def test_hashed_names_are_those_of_ssh_keygen(ssh_keygen: None, tmp_path: Path) -> None:
    """Lines that the real ssh-keygen has hashed match their host and port and no other."""
    file = tmp_path / "known_hosts"
    file.write_text(f"h {A.text}\n[h]:2222 {B.text}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", file], check=True, capture_output=True)
    assert "h " not in file.read_text().split("|")[0]
    known = KnownHosts.read([file])
    assert known.judge("h", 22, A).trust is Trust.CONFIRMED
    assert known.judge("h", 2222, B).trust is Trust.CONFIRMED
    assert known.judge("other", 22, A).trust is Trust.UNKNOWN


def test_the_fingerprint_is_that_of_ssh_keygen(ssh_keygen: None, tmp_path: Path) -> None:
    """People compare it with what ssh-keygen -l prints."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", tmp_path / "key"], check=True)
    algorithm, text = (tmp_path / "key.pub").read_text().split()[:2]
    key = parse_key(algorithm, text)
    told = subprocess.run(["ssh-keygen", "-l", "-f", tmp_path / "key.pub"], check=True, capture_output=True, text=True)
    assert key is not None
    assert key.fingerprint == told.stdout.split()[1]


def test_missing_and_unreadable_files_confirm_nothing(tmp_path: Path) -> None:
    """A folder, a missing file and one of random bytes are empty files."""
    (tmp_path / "bytes").write_bytes(bytes(range(256)) * 64)
    known = KnownHosts.read([tmp_path, tmp_path / "absent", tmp_path / "bytes"])
    assert known.judge("h", 22, A).trust is Trust.UNKNOWN


@given(st.binary(max_size=400), st.sampled_from([b"", b"h ", b"@revoked h ", b"|1|", b"@cert-authority * "]))
def test_no_content_of_a_file_raises(tmp_path_factory: pytest.TempPathFactory, content: bytes, start: bytes) -> None:
    """Whatever stands in a file, reading it and judging by it gives an answer; without the key itself never a yes."""
    file = tmp_path_factory.getbasetemp() / "any_known_hosts"
    file.write_bytes(start + content)
    assert KnownHosts.read([file]).judge("h", 22, A).trust is not Trust.CONFIRMED


def test_each_refusal_has_its_own_words(tmp_path: Path) -> None:
    """Unknown, changed and revoked are told apart, with fingerprints, file and line, and what to do."""
    scanned = ScannedKey(host="gpu1", name=known_name("h", 22), key=A)

    def words(*lines: str) -> tuple[type[Exception], str, str]:
        error = host_key_error(_known(tmp_path, *lines).judge("h", 22, A), scanned)
        return type(error), str(error), str(error.hint)

    kind, text, hint = words("")
    assert kind is UnknownKeyError
    assert text == f"nobody confirmed the key of gpu1: ssh-ed25519 {A.fingerprint}"
    assert "dstack hosts add gpu1" in hint
    kind, text, hint = words("# first", f"h {ECDSA.text}", f"h {B.text}")
    assert kind is ChangedKeyError
    assert "CHANGED" in text
    assert f"known_hosts:3 holds ssh-ed25519 {B.fingerprint}" in text
    assert A.fingerprint in text
    assert "remove line 3 of" in hint
    kind, text, _ = words(f"@revoked h {A.text}")
    assert kind is RevokedKeyError
    assert "REVOKED" in text


def test_confirmed_is_what_is_believed_next(tmp_path: Path) -> None:
    """confirm makes folder and file private, repeats nothing, and mends a last line without its newline."""
    file = tmp_path / "new" / "known_hosts"
    confirm(file, ScannedKey(host="gpu1", name=known_name("h", 2222), key=A))
    file.write_bytes(file.read_bytes().rstrip(b"\n"))
    for _ in range(2):
        confirm(file, ScannedKey(host="gpu2", name=known_name("i", 22), key=B))
    assert file.read_text() == f"[h]:2222 {A.text}\ni {B.text}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    known = KnownHosts.read([file])
    assert known.judge("h", 2222, A).trust is known.judge("i", 22, B).trust is Trust.CONFIRMED


def _confirm_many(file: Path, start: int) -> None:
    for number in range(200):
        confirm(file, ScannedKey(host="x", name=f"host{number}", key=A))
        confirm(file, ScannedKey(host="x", name=f"own{start}-{number}", key=A))


def test_confirming_in_several_processes_loses_and_repeats_nothing(tmp_path: Path) -> None:
    """Writers at the same time leave each line whole and once, those that several of them write too."""
    file = tmp_path / "known_hosts"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_confirm_many, args=(file, number)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    expected = {f"host{number} {A.text}" for number in range(200)}
    expected |= {f"own{worker}-{number} {A.text}" for worker in range(4) for number in range(200)}
    assert sorted(file.read_text().splitlines()) == sorted(expected)
