"""Slots: never more jobs than slots, whoever is killed, and never a slot lost."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.support.runners.client import Client, Refused, until
from tests.support.runners.host import Host, processes_with


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
    for _ in range(3):
        assert client.call("hold", nonce=host.nonce(), slots=3) == {"gpus": []}
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
    assert waiting.result() == {"gpus": []}


def test_tickets_can_be_read_by_all_and_written_by_none_but_their_owner(host: Host) -> None:
    client = host.connect()
    client.call("hold", nonce=host.nonce(), slots=2)
    assert sorted(path.stat().st_mode & 0o777 for path in host.slots.iterdir()) == [0o444, 0o644]


def test_a_lock_that_is_a_link_is_not_followed(host: Host) -> None:
    host.slots.mkdir()
    target = host.root.parent / "target"
    target.write_text("")
    (host.slots / "lock").symlink_to(target)
    with pytest.raises(Refused, match="slots") as refused:
        host.connect().call("hold", nonce=host.nonce(), slots=1)
    assert "root" in refused.value.hint


def test_a_lock_that_is_a_pipe_does_not_hang(host: Host) -> None:
    host.slots.mkdir()
    os.mkfifo(host.slots / "lock")
    with pytest.raises(Refused, match="plain file"):
        host.connect().call("hold", nonce=host.nonce(), slots=1)


@pytest.mark.parametrize("make", ["link", "pipe", "garbage", "folder"])
def test_what_others_put_into_the_queue_does_no_harm(host: Host, make: str) -> None:
    host.slots.mkdir()
    strange = host.slots / f"{1:020d}-strange"
    if make == "link":
        strange.symlink_to("/etc/passwd")
    elif make == "pipe":
        os.mkfifo(strange)
    elif make == "folder":
        strange.mkdir()
    else:
        strange.write_bytes(b"\xff" * 5000)
    assert host.connect().call("hold", nonce=host.nonce(), slots=1) == {"gpus": []}


def tickets_are(client: Client, count: int) -> bool:
    return len(client.call("queue", slots=1)["tickets"]) == count


def test_equal_jobs_start_in_the_order_of_their_tickets(host: Host) -> None:
    first = host.connect()
    running = host.nonce()
    first.call("hold", nonce=running, slots=1)
    nonces = [host.nonce() for _ in range(4)]
    clients = [host.connect() for _ in nonces]
    waits = []
    for position, (client, nonce) in enumerate(zip(clients, nonces, strict=True)):
        waits.append(client.ask("hold", nonce=nonce, slots=1))
        until(partial(tickets_are, first, position + 2), "it has its ticket")
    first.call("drop", nonce=running)
    for position, (client, nonce) in enumerate(zip(clients, nonces, strict=True)):
        assert waits[position].result() == {"gpus": []}
        assert all(later.frames.empty() for later in waits[position + 1 :])
        client.call("drop", nonce=nonce)


def test_the_queue_says_who_waits_for_what_and_why(host: Host) -> None:
    one, two = host.connect(), host.connect()
    one.call("hold", nonce=host.nonce(), slots=1, title="calm-otter-7/train")
    two.ask("hold", nonce=host.nonce(), slots=1, title="red-fox-1/train", demand={"cpu": 1}, priority=5)
    until(lambda: len(one.call("queue", slots=1)["tickets"]) == 2, "both have tickets")
    running, waiting = one.call("queue", slots=1)["tickets"]
    assert (running["title"], running["gpus"], running["why"]) == ("calm-otter-7/train", [], "")
    assert (waiting["title"], waiting["gpus"], waiting["priority"]) == ("red-fox-1/train", None, 5)
    assert waiting["why"] == "no slot is free"
    assert waiting["demand"]["cpu"] == 1


def test_what_a_host_can_never_give_is_refused_at_once(host: Host) -> None:
    with pytest.raises(Refused, match="cores") as refused:
        host.connect().call("hold", nonce=host.nonce(), slots=1, demand={"cpu": 100_000})
    assert "resources" in refused.value.hint


@pytest.mark.parametrize("demand", [{"cpu": -1}, {"gpus": "2"}, {"memory": 1.5}, {"gpu_name": 7}])
def test_a_demand_is_checked(host: Host, demand: dict[str, object]) -> None:
    with pytest.raises(Refused, match="demand"):
        host.connect().call("hold", nonce=host.nonce(), slots=1, demand=demand)


@pytest.mark.parametrize("slots", [0, -1, 1_000_000, "2", None])
def test_number_of_slots_is_checked(host: Host, slots: object) -> None:
    with pytest.raises(Refused):
        host.connect().call("hold", nonce=host.nonce(), slots=slots)
