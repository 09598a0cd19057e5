"""Slots: never more jobs than slots, whoever is killed, and never a slot lost."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.unit.runner.client import Client, Refused, until
from tests.unit.runner.conftest import Host, processes_with


def test_one_slot_runs_one_job_at_a_time_across_runners(host: Host) -> None:
    marks = host.root.parent / "marks"
    script = f"echo begin >> {marks}; sleep 0.05; echo end >> {marks}"

    def work(client: Client) -> None:
        for _ in range(3):
            assert host.run(client, script)[1]["code"] == 0

    clients = [host.connect() for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, clients))
    assert marks.read_text() == "begin\nend\n" * 9


def test_as_many_jobs_as_slots_run_together(host: Host) -> None:
    client = host.connect()
    taken = {client.call("hold", nonce=host.nonce(), slots=3)["slot"] for _ in range(3)}
    assert taken == {0, 1, 2}
    nonce = host.nonce()
    waiting = client.ask("hold", nonce=nonce, slots=3)
    until(lambda: host.state(client, nonce) == "held", "a supervisor waits")
    assert waiting.frames.empty()


def test_slot_is_taken_as_long_as_a_grandchild_lives(host: Host) -> None:
    first = host.connect()
    nonce = host.start(first, "setsid sh -c 'echo $$ > pid; echo up; exec sleep 1000' & wait")
    host.await_log(first, nonce, b"up")
    grandchild = int((host.folder(nonce) / "work" / "pid").read_text())
    first.kill()
    os.kill(json.loads((host.folder(nonce) / "supervisor.json").read_text())["pid"], signal.SIGKILL)
    for pid in host.processes():
        if pid != grandchild:
            os.kill(pid, signal.SIGKILL)
    second = host.connect()
    waiting = second.ask("hold", nonce=host.nonce(), slots=1)
    until(lambda: len(processes_with(str(host.slots))) > 1, "a supervisor looks for a slot")
    until(lambda: host.state(second, nonce) == "running", "the attempt counts as running")
    assert waiting.frames.empty()
    os.kill(grandchild, signal.SIGKILL)
    assert waiting.result() == {"slot": 0}


def test_slot_files_can_be_locked_by_all_and_written_by_none(host: Host) -> None:
    client = host.connect()
    client.call("hold", nonce=host.nonce(), slots=2)
    assert host.slots.stat().st_mode & 0o7777 == 0o1777
    assert {path.stat().st_mode & 0o777 for path in host.slots.iterdir()} == {0o444}


def test_slot_that_is_a_link_is_not_followed(host: Host) -> None:
    host.slots.mkdir()
    target = host.root.parent / "target"
    target.write_text("")
    (host.slots / "0").symlink_to(target)
    with pytest.raises(Refused, match="slots") as refused:
        host.connect().call("hold", nonce=host.nonce(), slots=1)
    assert "root" in refused.value.hint


def test_slot_that_is_a_pipe_does_not_hang(host: Host) -> None:
    host.slots.mkdir()
    os.mkfifo(host.slots / "0")
    with pytest.raises(Refused, match="plain file"):
        host.connect().call("hold", nonce=host.nonce(), slots=1)


@pytest.mark.parametrize("slots", [0, -1, 1_000_000, "2", None])
def test_number_of_slots_is_checked(host: Host, slots: object) -> None:
    with pytest.raises(Refused):
        host.connect().call("hold", nonce=host.nonce(), slots=slots)
