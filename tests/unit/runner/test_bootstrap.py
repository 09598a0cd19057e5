"""How a runner comes to life on a host: noise, versions, damage, and what is left for frames."""

from __future__ import annotations

import ast
import glob
import json
import os
import subprocess
from pathlib import Path

import pytest

from dstack import wire
from dstack.adapters.runner.zipapp import bootstrap_source, runner_zipapp
from dstack.wire import LAUNCHER
from tests.support.runners.client import Refused
from tests.support.runners.host import Host


def pythons(wanted: str) -> list[str]:
    return sorted(glob.glob(os.path.expanduser(f"~/.pyenv/versions/{wanted}/bin/python")))


def test_zipapp_is_small_and_the_same_each_time() -> None:
    first = runner_zipapp()
    runner_zipapp.cache_clear()
    assert runner_zipapp() == first
    assert len(first[0]) < 100_000


def test_hello_says_who_the_host_is(host: Host) -> None:
    facts = host.connect().call("hello")
    assert facts["wire"] == wire.WIRE_VERSION
    assert facts["uid"] == os.getuid()
    assert facts["dir"] == str(host.root)
    assert 1 <= facts["cpus"] <= (os.cpu_count() or 1)
    assert facts["memory"] > 0
    assert facts["git"][0].isdigit()
    named = "wire boot_id hostname machine user uid python platform cpus memory gpus git docker disk_free dir"
    named += " shared_slots place"
    assert " ".join(sorted(facts)) == " ".join(sorted(named.split()))


def test_zipapp_is_sent_once_and_kept_private(host: Host) -> None:
    assert host.connect().sent_zipapp
    assert not host.connect().sent_zipapp
    for path in [host.root, *host.root.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_damaged_zipapp_and_damaged_compiled_code_are_never_run(host: Host) -> None:
    host.connect()
    for path in (host.root / "runner").iterdir():
        path.write_bytes(path.read_bytes()[:-100] + b"x" * 100)
    again = host.connect()
    assert again.sent_zipapp
    assert again.call("spool") == {"attempts": []}


def test_zipapp_that_came_damaged_is_refused(host: Host, tmp_path: Path) -> None:
    body, _ = runner_zipapp()
    with pytest.raises(Refused, match="damaged"):
        host.connect_with(body[:-1] + b"x")
    assert not list((host.root / "runner").iterdir())


def test_noise_of_a_login_shell_is_before_the_sentinel(host: Host) -> None:
    noise = 'echo welcome; printf \'no newline at the end {"ready": true}\'; exec "$@"'
    client = host.connect(command=["sh", "-c", noise, "sh", "python3", "-I", "-S", "-c", LAUNCHER])
    assert client.call("spool") == {"attempts": []}


def test_frames_that_came_with_the_greeting_are_not_lost(host: Host) -> None:
    host.connect().close()
    zipapp, sha256 = runner_zipapp()
    source = bootstrap_source()
    greeting = {"sentinel": "s", "dir": str(host.root), "runner": sha256, "size": len(zipapp)}
    everything = b"%d\n%s%s\n" % (len(source), source, json.dumps(greeting).encode())
    everything += wire.pack_message({"id": 7, "op": "spool"})
    with subprocess.Popen(
        ["python3", "-I", "-S", "-c", LAUNCHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(everything)
        process.stdin.flush()
        answer = b'\ns{"ready": true}\n' + wire.pack_message({"id": 7, "ok": {"attempts": []}})
        assert process.stdout.read(len(answer)) == answer


@pytest.mark.parametrize("python", [*pythons("3.9.*"), *pythons("3.10.*")])
def test_oldest_pythons_run_a_job_to_its_end(host: Host, python: str) -> None:
    host.python = python
    log, end = host.run(host.connect(), "echo from $0 $1; exit 4", arguments=["x"])
    assert log.startswith(b"from ")
    assert end["code"] == 4


@pytest.mark.parametrize("python", [*pythons("3.6.*"), *pythons("3.7.*"), *pythons("3.8.*")])
def test_too_old_python_is_refused_in_words(host: Host, python: str) -> None:
    host.python = python
    with pytest.raises(Refused, match="too old") as refused:
        host.connect()
    assert "3.9" in refused.value.hint


def test_bootstrap_parses_on_python_3_6() -> None:
    ast.parse(bootstrap_source(), feature_version=(3, 6))


def test_shipped_modules_parse_on_python_3_9() -> None:
    folder = Path(wire.__file__).parent
    for path in [folder.parent / "private_folder.py", *folder.glob("*.py"), *(folder.parent / "runner").rglob("*.py")]:
        ast.parse(path.read_bytes(), filename=str(path), feature_version=(3, 9))


def test_unusable_folder_is_said_with_what_to_do(host: Host) -> None:
    host.root.write_text("a file")
    with pytest.raises(Refused, match="cannot start") as refused:
        host.connect()
    assert "dir" in refused.value.hint
