"""Jobs that were given secrets: what they say is masked before it is on the disk, and nothing else is changed."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import time
from pathlib import Path

import pytest

from dstack.runner.base.processes import is_alive
from tests.support.runners.client import Refused, until
from tests.support.runners.containers import PYTHON, SMALL, client_pid, contained, docker, engine, gone
from tests.support.runners.host import MEBIBYTE, Host, resident
from tests.support.runners.small_disk import small_disk

__all__ = ["contained", "engine", "small_disk"]

TOKEN = "tk/4R+w9 Zq\"81'é"
SECRETS = {"TOKEN": TOKEN}
SAY_ALL = """
import base64, json, os, sys, urllib.parse
token = os.environ["TOKEN"]
print("raw", token)
print("json", json.dumps({"token": token}))
print("json", json.dumps({"token": token}, ensure_ascii=False))
print("url", urllib.parse.quote(token, safe=""))
for pad in ("", "u", "u:"):
    print("base64", base64.b64encode((pad + token).encode()).decode())
print("cut ", end="", flush=True)
for character in token:
    print(character, end="", flush=True)
print(" end", file=sys.stderr)
"""


def supervisor(host: Host, nonce: str) -> int:
    return int(json.loads((host.folder(nonce) / "supervisor.json").read_text())["pid"])


def kill_supervisor(host: Host, nonce: str) -> None:
    """Returns when the kernel has closed its files: until then its end of a pipe still takes words."""
    named = json.loads((host.folder(nonce) / "supervisor.json").read_text())
    os.kill(int(named["pid"]), signal.SIGKILL)
    until(lambda: not is_alive(named), "the supervisor is dead")


def assert_clean(data: bytes, where: str) -> None:
    raw = TOKEN.encode()
    cores = [base64.b64encode(bytes(pad) + raw)[4:-4] for pad in range(3)]
    quoted = [json.dumps(TOKEN, ensure_ascii=plain)[1:-1].encode() for plain in (True, False)]
    for canary in (raw, *quoted, b"tk%2F4R", b"tk%2f4r", *cores):
        assert canary not in data, f"{canary!r} in {where}"


def assert_clean_folder(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            assert_clean(path.read_bytes(), str(path))


def test_no_encoding_of_a_secret_is_on_the_disk_and_every_line_is_there(host: Host) -> None:
    script = f"cat > say.py <<'E'\n{SAY_ALL}\nE\npython3 say.py; printf %s \"$TOKEN\" | sha256sum"
    log, end = host.run(host.connect(), script, secrets=SECRETS)
    assert end["code"] == 0
    assert_clean_folder(host.root)
    assert log.count(b"***") == 8
    assert log.endswith(b"cut *** end\n" + hashlib.sha256(TOKEN.encode()).hexdigest().encode() + b"  -\n")


def test_a_secret_that_comes_in_two_writes_is_hidden(host: Host) -> None:
    client = host.connect()
    script = (
        'printf "<%s" "${TOKEN%????????}"; while [ ! -e go ]; do sleep 0.02; done; printf "%s>" "${TOKEN#????????}"'
    )
    nonce = host.start(client, script, secrets={"TOKEN": "0123456789abcdef"})
    host.await_log(client, nonce, b"<")
    assert (host.folder(nonce) / "log").read_bytes() == b"<"
    (host.folder(nonce) / "work" / "go").touch()
    assert host.finish(client, nonce)[0] == b"<***>"


def test_what_is_held_back_comes_at_the_end(host: Host) -> None:
    log, _ = host.run(host.connect(), "printf 'last 0123'", secrets={"TOKEN": "0123456789abcdef"})
    assert log == b"last 0123"


def test_binary_log_without_the_secret_is_byte_identical_and_quick(host: Host) -> None:
    client = host.connect()
    nonce = host.start(client, "head -c 30000000 /dev/urandom | tee copy", secrets=SECRETS)
    log, end = host.finish(client, nonce)
    assert hashlib.sha256(log).digest() == hashlib.sha256((host.folder(nonce) / "work" / "copy").read_bytes()).digest()
    assert end["code"] == 0


def test_supervisor_masks_100_megabytes_in_bounded_memory(host: Host) -> None:
    client = host.connect()
    script = "head -c 100000000 /dev/zero | tr '\\0' x; echo; while [ ! -e go ]; do sleep 0.02; done"
    nonce = host.start(client, script, secrets=SECRETS)
    before = resident(supervisor(host, nonce))
    until(lambda: (host.folder(nonce) / "log").stat().st_size == 100_000_001, "the log is whole")
    assert resident(supervisor(host, nonce)) - before < 32 * MEBIBYTE
    (host.folder(nonce) / "work" / "go").touch()
    assert host.finish(client, nonce)[1]["code"] == 0


def test_stop_ends_a_job_that_floods_the_log(host: Host) -> None:
    client = host.connect()
    nonce = host.start(client, "echo up; trap 'echo $TOKEN last; exit 3' TERM; yes & wait", secrets=SECRETS)
    host.await_log(client, nonce, b"up")
    began = time.monotonic()
    end = client.call("stop", nonce=nonce, grace=5, abort=False)["exit"]
    assert end["stopped"]
    assert time.monotonic() - began < 20
    log = (host.folder(nonce) / "log").read_bytes()
    assert b"*** last\n" in log
    assert_clean(log, "the log")


def test_what_the_script_leaves_behind_with_the_pipe_open_does_not_keep_it(host: Host) -> None:
    log, end = host.run(host.connect(), "setsid sleep 1000 & echo $TOKEN", secrets=SECRETS)
    assert end["code"] == 0
    assert log.startswith(b"***\n[dstack] the script ended; ending what it left behind: ")


def test_a_prepare_that_fails_says_nothing_of_what_its_runner_inherited(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Secrets come with `go`, after `prepare`; but a local runner has the caller's exported variables."""
    monkeypatch.setenv("TOKEN", TOKEN)
    client = host.connect()
    nonce = host.nonce()
    client.call("hold", nonce=nonce, slots=1)
    lost = {"path": "in", "kind": "file", "mode": 0o644, "size": 3, "sha256": "0" * 64}
    with pytest.raises(Refused) as refused:
        host.prepare(client, nonce, "true", inputs=[lost])
    assert_clean(str(refused.value).encode(), "the answer")
    assert (host.folder(nonce) / "log").read_bytes() != b""
    assert_clean_folder(host.root)


def test_a_full_disk_ends_a_job_that_writes_its_log(small_disk: Host) -> None:
    client = small_disk.connect()
    nonce = small_disk.start(client, "head -c 100000000 /dev/zero; echo never > reached; sleep 1000", secrets=SECRETS)
    _, end = small_disk.finish(client, nonce)
    assert end["code"] != 0
    assert "disk of the host is full" in end["reason"]


def test_without_secrets_the_job_writes_to_its_log_itself(host: Host) -> None:
    client = host.connect()
    nonce = host.start(client, 'readlink /proc/$$/fd/1; printf "%s" "$SHORT"', secrets={"SHORT": "abc"})
    assert host.finish(client, nonce)[0] == f"{host.folder(nonce)}/log\nabc".encode()


@pytest.mark.docker
def test_container_says_nothing_of_a_secret_anywhere(contained: Host) -> None:
    client = contained.connect()
    script = f"cat > say.py <<'E'\n{SAY_ALL}\nE\npython3 say.py; while [ ! -e go ]; do sleep 0.05; done"
    nonce = contained.start(client, script, image=PYTHON, secrets=SECRETS)
    contained.await_log(client, nonce, b" end\n")
    assert_clean(docker("inspect", f"dstack-{nonce}").encode(), "docker inspect")
    assert_clean(docker("logs", f"dstack-{nonce}").encode(), "docker logs")
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                assert_clean((entry / "cmdline").read_bytes(), f"{entry}/cmdline")
            except OSError:
                continue
    (contained.folder(nonce) / "work" / "go").touch()
    log, end = contained.finish(client, nonce)
    assert (end["code"], log.count(b"***")) == (0, 8)
    assert_clean_folder(contained.root)
    assert gone(nonce)


@pytest.mark.docker
def test_killed_docker_client_costs_no_byte_of_a_masked_log(contained: Host) -> None:
    client = contained.connect()
    script = "echo up; while [ ! -e go ]; do sleep 0.05; done; echo after $TOKEN; exit 6"
    nonce = contained.start(client, script, image=SMALL, secrets=SECRETS)
    contained.await_log(client, nonce, b"up")
    os.kill(client_pid(nonce), signal.SIGKILL)
    until(lambda: not client_pid(nonce), "the client is gone")
    (contained.folder(nonce) / "work" / "go").touch()
    log, end = contained.finish(client, nonce)
    assert log == b"up\nafter ***\n"
    assert end["code"] == 6


@pytest.mark.docker
def test_container_whose_supervisor_is_killed_does_not_hang_and_can_be_stopped(contained: Host) -> None:
    """Nobody could mask its words any more: its next one fails, so that it neither waits for ever nor speaks."""
    client = contained.connect()
    script = "echo up; while [ ! -e go ]; do sleep 0.05; done; trap '' PIPE; echo $TOKEN; touch spoken; sleep 1000"
    nonce = contained.start(client, script, image=SMALL, secrets=SECRETS)
    contained.await_log(client, nonce, b"up")
    kill_supervisor(contained, nonce)
    (contained.folder(nonce) / "work" / "go").touch()
    until(lambda: not client_pid(nonce), "the container ended")
    assert not (contained.folder(nonce) / "work" / "spoken").exists()
    client.call("stop", nonce=nonce, grace=0, abort=True)
    assert (contained.folder(nonce) / "log").read_bytes().startswith(b"up\n")
    assert_clean_folder(contained.root)
    assert gone(nonce)


@pytest.mark.docker
def test_stop_ends_a_container_that_floods_its_masked_log(contained: Host) -> None:
    client = contained.connect()
    script = "echo up; trap 'echo last $TOKEN; exit 3' TERM; yes & wait"
    nonce = contained.start(client, script, image=SMALL, secrets=SECRETS)
    contained.await_log(client, nonce, b"up")
    assert client.call("stop", nonce=nonce, grace=5, abort=False)["exit"]["stopped"]
    log = (contained.folder(nonce) / "log").read_bytes()
    assert b"last ***\n" in log
    assert_clean(log, "the log")
    assert gone(nonce)


@pytest.mark.docker
def test_binary_masked_log_of_a_container_is_byte_identical(contained: Host) -> None:
    client = contained.connect()
    script = "head -c 30000000 /dev/urandom | tee copy; printf '\\000\\377 end'"
    nonce = contained.start(client, script, image=SMALL, secrets=SECRETS)
    log, end = contained.finish(client, nonce)
    assert log == (contained.folder(nonce) / "work" / "copy").read_bytes() + b"\0\xff end"
    assert end["code"] == 0
