"""Jobs with `image:` on the local Docker engine."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dstack.runner.base.spool import Attempt
from dstack.runner.executors import docker as questions
from dstack.runner.executors.container_keeper import Account, create_argv, environment_text
from dstack.runner.executors.executor import Launch
from dstack.wire.job_messages import JobOrder
from tests.support.runners.client import until
from tests.support.runners.containers import PYTHON, SMALL, client_pid, docker, gone
from tests.support.runners.host import Host
from tests.support.runners.orders import job_order


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def supervisor(host: Host, nonce: str) -> int:
    return int(json.loads((host.folder(nonce) / "supervisor.json").read_text())["pid"])


@pytest.mark.docker
def test_job_in_an_image_sees_its_folder_arguments_and_environment(contained: Host) -> None:
    script = 'cat inner.txt; pwd; printf "%s|" "$1" "$plain" "$secret"; umask; touch "$HOME/w" made; echo err >&2; cat'
    script += '; printf %s "$secret" | sha256sum'
    client = contained.connect()
    nonce = contained.start(
        client,
        script,
        image=SMALL,
        prefix="sub/",
        arguments=["a 'b'"],
        environment={"plain": "x\ny"},
        secrets={"secret": "hush é'\"$(id)"},
        artifacts=["made"],
    )
    log, end = contained.finish(client, nonce)
    folder = contained.folder(nonce) / "work" / "sub"
    given_ = hashlib.sha256("hush é'\"$(id)".encode()).hexdigest()
    assert log.decode() == f"inner\n{folder}\na 'b'|x\ny|***|0022\nerr\n{given_}  -\n"
    assert (end["code"], end["missing"], end["reason"]) == (0, [], "")
    made = folder / "made"
    assert (made.stat().st_uid, made.stat().st_mode & 0o777) == (os.getuid(), 0o644)
    assert gone(nonce)


@pytest.mark.docker
def test_nothing_of_the_environment_is_in_docker_inspect(contained: Host) -> None:
    client = contained.connect()
    nonce = contained.start(
        client, "echo up; sleep 1000", image=SMALL, environment={"plain": "open-77"}, secrets={"S": "hush-1234"}
    )
    contained.await_log(client, nonce, b"up")
    inspected = docker("inspect", f"dstack-{nonce}")
    assert '"NetworkMode": "host"' in inspected
    assert "hush-1234" not in inspected
    assert "open-77" not in inspected
    assert "no-new-privileges" in inspected
    client.call("stop", nonce=nonce, grace=0, abort=True)


@pytest.mark.docker
def test_exit_code_of_the_container_is_the_jobs(contained: Host) -> None:
    client = contained.connect()
    assert contained.run(client, "exit 42", image=SMALL)[1]["code"] == 42
    log, end = contained.run(client, "echo one; false; echo two", image=SMALL)
    assert (log, end["code"]) == (b"one\n", 1)


@pytest.mark.docker
def test_binary_log_of_a_container_is_byte_identical(contained: Host) -> None:
    client = contained.connect()
    nonce = contained.start(client, "head -c 3000000 /dev/urandom | tee copy; printf '\\000\\377 end'", image=SMALL)
    log, _ = contained.finish(client, nonce)
    assert log == (contained.folder(nonce) / "work" / "copy").read_bytes() + b"\0\xff end"


@pytest.mark.docker
def test_image_that_cannot_be_had_is_the_reason(contained: Host) -> None:
    log, end = contained.run(contained.connect(), "true", image="localhost:9/absent:1")
    assert end["code"] is None
    assert "could not be pulled" in end["reason"]
    assert b"localhost:9/absent:1" in log


@pytest.mark.docker
def test_stop_gives_the_program_in_the_container_its_grace(contained: Host) -> None:
    client = contained.connect()
    program = (
        "import signal, sys, time\n"
        "def end(*_): print('saving', flush=True); time.sleep(0.5); print('saved', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); print('up', flush=True); time.sleep(1000)"
    )
    nonce = contained.start(client, f'python3 -c "{program}"', image=PYTHON)
    contained.await_log(client, nonce, b"up")
    end = client.call("stop", nonce=nonce, grace=20, abort=False)["exit"]
    assert (end["stopped"], end["reason"]) == (True, "stopped")
    assert contained.finish(client, nonce)[0].endswith(b"saved\n")
    assert gone(nonce)


@pytest.mark.docker
@pytest.mark.parametrize("abort", [False, True])
def test_stop_ends_a_container_that_ignores_sigterm(contained: Host, abort: bool) -> None:
    client = contained.connect()
    script = "trap '' TERM; setsid sleep 1000 & echo up; while :; do sleep 0.1; done"
    nonce = contained.start(client, script, image=SMALL)
    contained.await_log(client, nonce, b"up")
    assert client.call("stop", nonce=nonce, grace=1, abort=abort)["exit"]["stopped"]
    assert gone(nonce)


@pytest.mark.docker
def test_killed_docker_client_costs_neither_log_nor_exit_code(contained: Host) -> None:
    client = contained.connect()
    script = "echo up; while [ ! -e go ]; do sleep 0.05; done; echo after; exit 6"
    nonce = contained.start(client, script, image=SMALL)
    contained.await_log(client, nonce, b"up")
    os.kill(client_pid(nonce), signal.SIGKILL)
    until(lambda: not client_pid(nonce), "the client is gone")
    assert contained.state(client, nonce) == "running"
    (contained.folder(nonce) / "work" / "go").touch()
    log, end = contained.finish(client, nonce)
    assert log == b"up\nafter\n"
    assert end["code"] == 6


@pytest.mark.docker
def test_slot_is_held_until_the_container_is_gone_though_supervisor_and_client_are_killed(contained: Host) -> None:
    client = contained.connect()
    nonce = contained.start(client, "echo up; sleep 1000", image=SMALL)
    contained.await_log(client, nonce, b"up")
    os.kill(supervisor(contained, nonce), signal.SIGKILL)
    os.kill(client_pid(nonce), signal.SIGKILL)
    waiting = client.ask("hold", nonce=contained.nonce(), slots=1)
    assert contained.state(client, nonce) == "running"
    assert waiting.frames.empty()
    assert client.call("stop", nonce=nonce, grace=0.5, abort=False)["exit"]["stopped"]
    assert gone(nonce)
    assert waiting.result() == {"gpus": []}


@pytest.mark.docker
def test_container_that_outlived_everything_of_ours_is_running_and_can_be_stopped(contained: Host) -> None:
    client = contained.connect()
    nonce = contained.start(client, "echo up; sleep 1000", image=SMALL)
    contained.await_log(client, nonce, b"up")
    top = supervisor(contained, nonce)
    for pid in [top, *children_of(top), client_pid(nonce)]:
        os.kill(pid, signal.SIGKILL)
    assert contained.state(client, nonce) == "running"
    assert client.call("stop", nonce=nonce, grace=0.5, abort=False)["exit"]["code"] is None
    assert gone(nonce)
    assert contained.state(client, nonce) == "ended"


@pytest.mark.docker
@pytest.mark.parametrize("operation", ["stop", "release"])
def test_ended_container_whose_supervisor_and_keeper_were_killed_is_removed(contained: Host, operation: str) -> None:
    client = contained.connect()
    nonce = contained.start(client, "echo up; while [ ! -e go ]; do sleep 0.05; done", image=SMALL)
    contained.await_log(client, nonce, b"up")
    top = supervisor(contained, nonce)
    for pid in [top, *children_of(top), client_pid(nonce)]:
        os.kill(pid, signal.SIGKILL)
    (contained.folder(nonce) / "work" / "go").touch()
    until(lambda: contained.state(client, nonce) == "vanished", "the container ended")
    assert not gone(nonce)
    client.call(operation, nonce=nonce, **({"grace": 0, "abort": True} if operation == "stop" else {}))
    assert gone(nonce)


@pytest.mark.docker
def test_container_that_was_taken_away_is_no_success(contained: Host) -> None:
    client = contained.connect()
    nonce = contained.start(client, "echo up; sleep 1000", image=SMALL)
    contained.await_log(client, nonce, b"up")
    docker("rm", "--force", f"dstack-{nonce}")
    _, end = contained.finish(client, nonce)
    assert end["code"] != 0
    assert end["reason"]


def attempt(root: Path, **fields: Any) -> tuple[Attempt, JobOrder]:
    order = job_order(**{"prefix": "sub/", "image": "i:1", "arguments": ("--x",), **fields})
    return Attempt(str(root), "a" * 16), order


def test_no_value_of_the_environment_is_on_the_command_line(tmp_path: Path) -> None:
    one, order = attempt(tmp_path, environment={"PLAIN": "open-77"})
    assert "open-77" not in " ".join(create_argv(one, order, Launch({}), Account(1000, 1000)))


def test_container_of_a_plain_user_has_no_capabilities_and_what_was_asked(tmp_path: Path) -> None:
    one, order = attempt(tmp_path, shm_size=1 << 30)
    argv = create_argv(one, order, Launch({}, gpus=(0, 2)), Account(1000, 1001, (27,)))
    line = " ".join(argv)
    assert "--user 1000:1001" in line
    assert "--cap-drop ALL" in line
    assert "--group-add 27" in line
    assert "--shm-size 1073741824b" in line
    assert '--gpus "device=0,2"' in line
    assert "--privileged" not in line
    assert "docker.sock" not in line


def test_image_that_looks_like_an_option_is_no_option(tmp_path: Path) -> None:
    one, order = attempt(tmp_path, image="--privileged")
    argv = create_argv(one, order, Launch({}), Account(1, 1))
    assert argv.index("--") == argv.index("--privileged") - 1


def test_folder_with_comma_and_quote_stays_one_mount(tmp_path: Path) -> None:
    one, order = attempt(tmp_path / 'a,b"c')
    mounts = [word for word in create_argv(one, order, Launch({}), Account(1, 1)) if word.startswith("type=bind")]
    assert f'"source={one.work}"'.replace('b"c', 'b""c') in mounts[0]


def test_what_is_given_by_stdin_survives_a_real_shell(tmp_path: Path) -> None:
    values = {"A": 'it\'s "x" $(touch no) `y` \\', "B": "two\nlines\n", "C": "", "bad-name": "x", "D;touch no": "x"}
    one, order = attempt(tmp_path, environment=values)
    text = environment_text(one, order, {"S": "é"}, "me")
    script = 'eval "$(cat)"; printf "%s|" "$A" "$B" "$C" "$S" "$HOME" "$USER" "$_dstack_whole"; ls'
    done = subprocess.run(["sh", "-c", script], input=text, capture_output=True, cwd=tmp_path, check=True)
    home = f"{one.container}/home"
    assert done.stdout.decode() == f"{values['A']}|{values['B']}||é|{home}|me|1|"


@pytest.mark.docker
def test_images_are_looked_for_and_none_is_pulled(host: Host, engine: None) -> None:
    asked = [SMALL, "localhost:9/absent:1", PYTHON, "--help"]
    assert host.connect().call("images", images=asked) == {"present": [SMALL, PYTHON]}


def test_without_docker_no_image_is_there(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python3").symlink_to(Path(sys.executable).resolve())
    monkeypatch.setenv("PATH", str(tmp_path))
    assert host.connect().call("images", images=[SMALL]) == {"present": []}


def test_a_docker_that_hangs_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/sh\necho asked >> {tmp_path}/asked\nexec sleep 60\n")
    docker.chmod(0o755)
    monkeypatch.setattr(questions, "IMAGE_TIMEOUT_S", 0.5)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert questions.present_images([SMALL, PYTHON, "third:1"]) == []
    assert (tmp_path / "asked").read_text() == "asked\n"
