"""Ending a job: nothing of it is left, whatever shape its processes have and whoever is gone already."""

from __future__ import annotations

import glob
import json
import os
import signal
from pathlib import Path

import pytest

from tests.support.runners.client import until
from tests.support.runners.host import Host

PYTHON_DOUBLE_FORK = """python3 -c '
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for fd in range(3, 64):
            try: os.close(fd)
            except OSError: pass
        print("up", flush=True)
        time.sleep(1000)
    os._exit(0)
' & sleep 1000"""

RESPAWN = """trap '' TERM; echo up
again() { while :; do setsid sh -c 'sleep 0.05' & sleep 0.01; done; }
again & again & wait"""

FIRST_THREAD_ENDED = """exec python3 -c '
import ctypes, threading, time
threading.Thread(target=lambda: (time.sleep(0.2), print("up", flush=True), time.sleep(1000))).start()
ctypes.CDLL(None).pthread_exit(None)
'"""

SHAPES = {
    "plain": "echo up; sleep 1000",
    "pipeline": "(echo up; sleep 1000) | cat | cat",
    "setsid": "setsid sh -c 'echo up; sleep 1000' & sleep 1000",
    "double fork": PYTHON_DOUBLE_FORK,
    "ignores SIGTERM": "trap '' TERM; echo up; while :; do sleep 0.1; done",
    "respawns": RESPAWN,
    "first thread ended": FIRST_THREAD_ENDED,
}


def survivors(host: Host, nonce: str) -> list[str]:
    """Whoever carries the attempt's mark or works in its folder, supervisor included; judged by /proc."""
    mark = f"DSTACK_ATTEMPT={nonce}".encode()
    found = []
    # By thread: a process whose first thread has ended shows nothing of itself.
    for task in glob.glob("/proc/[0-9]*/task/[0-9]*"):
        try:
            if mark in Path(task, "environ").read_bytes().split(b"\0"):
                found.append(Path(task, "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_stop_leaves_nothing_of_any_shape(host: Host, shape: str) -> None:
    client = host.connect()
    nonce = host.start(client, SHAPES[shape])
    host.await_log(client, nonce, b"up")
    assert survivors(host, nonce)
    end = client.call("stop", nonce=nonce, grace=0.3, abort=False)["exit"]
    assert end["stopped"]
    assert survivors(host, nonce) == []
    until(lambda: not host.processes(), "the supervisor ended")


@pytest.mark.parametrize("shape", SHAPES)
def test_later_runner_ends_a_job_whose_supervisor_was_killed(host: Host, shape: str) -> None:
    first = host.connect()
    nonce = host.start(first, SHAPES[shape])
    host.await_log(first, nonce, b"up")
    first.kill()
    os.kill(json.loads((host.folder(nonce) / "supervisor.json").read_text())["pid"], signal.SIGKILL)
    second = host.connect()
    assert host.state(second, nonce) == "running"
    end = second.call("stop", nonce=nonce, grace=0.3, abort=False)["exit"]
    assert end["stopped"]
    assert end["code"] is None
    assert survivors(host, nonce) == []
    assert host.state(second, nonce) == "ended"


def test_stop_lets_the_job_say_its_last_words(host: Host) -> None:
    client = host.connect()
    script = "trap 'echo saving; sleep 0.3; echo saved; exit 7' TERM; echo up; while :; do sleep 0.05 || :; done"
    nonce = host.start(client, script)
    host.await_log(client, nonce, b"up")
    end = client.call("stop", nonce=nonce, grace=30, abort=False)["exit"]
    assert (end["code"], end["stopped"], end["reason"]) == (7, True, "stopped")
    assert host.finish(client, nonce)[0].endswith(b"saving\nsaved\n")


def test_exit_code_of_a_stopped_job_is_never_lost(host: Host) -> None:
    client = host.connect()
    for _ in range(30):
        nonce = host.start(client, "trap 'exit 7' TERM; echo up; while :; do sleep 0.01 || :; done")
        host.await_log(client, nonce, b"up")
        end = client.call("stop", nonce=nonce, grace=30, abort=False)["exit"]
        assert end["code"] == 7, end


def test_abort_overtakes_a_stop_that_waits(host: Host) -> None:
    client = host.connect()
    nonce = host.start(client, SHAPES["ignores SIGTERM"])
    host.await_log(client, nonce, b"up")
    patient = client.ask("stop", nonce=nonce, grace=10_000, abort=False)
    until(lambda: (host.folder(nonce) / "stop.json").exists(), "the stop is under way")
    end = client.call("stop", nonce=nonce, grace=0, abort=True)["exit"]
    assert end["signal"] == signal.SIGKILL
    assert patient.result()["exit"] == end


def test_stopped_process_is_ended_too(host: Host) -> None:
    client = host.connect()
    nonce = host.start(client, "echo up; kill -STOP $$; sleep 1000")
    host.await_log(client, nonce, b"up")
    assert client.call("stop", nonce=nonce, grace=30, abort=False)["exit"]["stopped"]


def test_stop_before_go_means_that_it_never_starts(host: Host) -> None:
    client = host.connect()
    nonce = host.nonce()
    client.call("hold", nonce=nonce, slots=1)
    host.prepare(client, nonce, "touch ran")
    assert client.call("stop", nonce=nonce, grace=1, abort=False) == {"exit": None}
    assert client.call("go", nonce=nonce, environment={}) == {"started": False, "at": 0.0}
    assert not (host.folder(nonce) / "work" / "ran").exists()


def test_stop_of_an_ended_job_changes_nothing(host: Host) -> None:
    client = host.connect()
    nonce = host.start(client, "exit 3")
    _, end = host.finish(client, nonce)
    assert client.call("stop", nonce=nonce, grace=1, abort=False) == {"exit": end}
    assert not end["stopped"]


def test_pid_that_was_given_to_a_stranger_is_spared(host: Host) -> None:
    client = host.connect()
    nonce = host.start(client, "echo up; sleep 1000")
    host.await_log(client, nonce, b"up")
    path = host.folder(nonce) / "supervisor.json"
    named = json.loads(path.read_text())
    os.kill(named["pid"], signal.SIGKILL)
    path.write_text(json.dumps({**named, "pid": os.getpid()}))
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert client.call("stop", nonce=nonce, grace=0.3, abort=False)["exit"]["stopped"]
    finally:
        signal.signal(signal.SIGTERM, before)
    assert survivors(host, nonce) == []


def test_a_runner_ends_with_its_nursery(host: Host) -> None:
    """It could start nothing more; what it had started goes on."""
    client = host.connect()
    nonce = host.start(client, "echo up; sleep 1000")
    host.await_log(client, nonce, b"up")
    children = Path(f"/proc/{client.process.pid}/task/{client.process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    assert client.process.wait(30) == 1
    assert host.state(host.connect(), nonce) == "running"
