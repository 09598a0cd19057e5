"""A full disk at each phase of an attempt: it is named as one, and no end, stop or loss is hidden by it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.support.runners.client import Refused, until
from tests.support.runners.host import Host
from tests.support.runners.small_disk import SECRETS, Filler


@pytest.fixture
def filler(small_disk: Host) -> Filler:
    return Filler(small_disk.root)


def refused(host: Host, op: str, **fields: Any) -> dict[str, Any]:
    stream = host.connect().ask(op, **fields)
    for _ in stream.data():
        pass
    found: dict[str, Any] = stream.answer["error"]
    return found


def test_end_of_a_job_that_fills_the_disk_is_known_with_the_reason(small_disk: Host) -> None:
    client = small_disk.connect()
    nonce = small_disk.start(client, "head -c 100000000 /dev/zero > big")
    _, end = small_disk.finish(client, nonce)
    assert end["code"] == 1
    assert "disk of the host is full" in end["reason"]
    assert small_disk.connect().call("status", nonce=nonce)["exit"] == end


def test_attempt_that_finds_the_disk_full_is_refused_in_words(small_disk: Host) -> None:
    client = small_disk.connect()
    small_disk.start(client, "head -c 100000000 /dev/zero > big || sleep 1000", slots=2)
    small_disk.await_end_of_space()
    error = refused(small_disk, "hold", nonce=small_disk.nonce(), slots=2)
    assert error["kind"] == "room"
    assert "the disk of the host is full" in error["message"]


def test_code_that_has_no_room_is_named_and_the_attempt_stays_held(small_disk: Host, filler: Filler) -> None:
    client = small_disk.connect()
    first = small_disk.nonce()
    client.call("hold", nonce=first, slots=2)
    small_disk.prepare(client, first, "true")
    nonce = small_disk.nonce()
    client.call("hold", nonce=nonce, slots=2)
    filler.fill()
    with pytest.raises(Refused) as caught:
        small_disk.prepare(client, nonce, "true")
    assert caught.value.kind == "room"
    assert "the disk of the host is full" in str(caught.value)
    filler.empty()
    small_disk.prepare(client, nonce, "echo begun")
    assert client.call("go", nonce=nonce, environment={})["started"] is True
    assert small_disk.finish(client, nonce)[0].endswith(b"begun\n")


def test_code_that_has_no_room_on_its_way_is_named(small_disk: Host, filler: Filler) -> None:
    client = small_disk.connect()
    nonce = small_disk.nonce()
    client.call("hold", nonce=nonce, slots=1)
    filler.fill()
    with pytest.raises(Refused) as caught:
        small_disk.prepare(client, nonce, "true")
    assert caught.value.kind == "room"


@pytest.mark.parametrize("verdict", ["started", "refused"])
def test_a_verdict_needs_no_room(small_disk: Host, filler: Filler, verdict: str) -> None:
    client = small_disk.connect()
    nonce = small_disk.nonce()
    client.call("hold", nonce=nonce, slots=1)
    small_disk.prepare(client, nonce, "sleep 600")
    filler.fill()
    before = time.time()
    if verdict == "started":
        answer = client.call("go", nonce=nonce, environment={})
        assert answer["started"] is True
        assert answer["at"] >= before - 1
    else:
        client.call("drop", nonce=nonce)
    assert small_disk.connect().call("verdict", nonce=nonce) == {"verdict": verdict}


@pytest.mark.parametrize("abort", [False, True])
def test_a_stop_needs_no_room(small_disk: Host, filler: Filler, abort: bool) -> None:
    client = small_disk.connect()
    nonce = small_disk.start(client, "echo ready; exec sleep 600")
    small_disk.await_log(client, nonce, b"ready")
    filler.fill()
    for _ in range(2):  # the second finds the room used, and the first wish standing
        end = small_disk.connect().call("stop", nonce=nonce, grace=5, abort=abort)["exit"]
        assert end["stopped"] is True
    assert not small_disk.processes()


def test_log_that_finds_room_again_in_time_is_whole(small_disk: Host, filler: Filler) -> None:
    client = small_disk.connect()
    script = "echo first; while [ ! -e full ]; do sleep 0.02; done; echo second; while [ ! -e go ]; do sleep 0.02; done"
    nonce = small_disk.start(client, script + "; echo third", secrets=SECRETS)
    small_disk.await_log(client, nonce, b"first")
    work = small_disk.folder(nonce) / "work"
    filler.fill(leave=1 << 13)
    (work / "full").touch()
    filler.fill()
    filler.empty()
    (work / "go").touch()
    log, end = small_disk.finish(client, nonce)
    assert log == b"first\nsecond\nthird\n"
    assert (end["code"], end["log_lost"]) == (0, "")


def test_log_that_is_cut_says_so_in_its_place_and_in_the_report(small_disk: Host, filler: Filler) -> None:
    client = small_disk.connect()
    script = (
        "trap '' PIPE; echo first; while [ ! -e full ]; do sleep 0.02; done; "
        "head -c 9000000 /dev/zero | tr '\\0' a || true; exit 0"
    )
    nonce = small_disk.start(client, script, secrets=SECRETS)
    small_disk.await_log(client, nonce, b"first")
    (small_disk.folder(nonce) / "work" / "full").touch()
    filler.fill()
    log, end = small_disk.finish(client, nonce)
    assert end["code"] == 0
    assert "the disk of the host is full" in end["log_lost"]
    assert log.startswith(b"first\n")
    last = log.rstrip(b"\n").rpartition(b"\n")[2].decode()
    assert last == f"[dstack] the log is cut here: {end['log_lost']}"


def test_log_that_the_job_itself_could_not_write_is_named(small_disk: Host, filler: Filler) -> None:
    client = small_disk.connect()
    script = (
        "echo first; while [ ! -e full ]; do sleep 0.02; done; "
        "head -c 9000000 /dev/zero | tr '\\0' a 2>/dev/null || true; exit 0"
    )
    nonce = small_disk.start(client, script)
    small_disk.await_log(client, nonce, b"first")
    (small_disk.folder(nonce) / "work" / "full").touch()
    filler.fill()
    log, end = small_disk.finish(client, nonce)
    assert end["code"] == 0
    assert len(log) < 9000006
    assert "the disk of the host is full: the log may lack" in end["log_lost"]
    assert log.endswith(f"[dstack] {end['log_lost']}\n".encode())


def test_the_reserve_is_small(small_disk: Host) -> None:
    client = small_disk.connect()
    nonce = small_disk.nonce()
    client.call("hold", nonce=nonce, slots=1)
    sizes = {path.name: path.stat().st_size for path in small_disk.folder(nonce).iterdir()}
    assert sum(sizes.values()) < 5 * 4096, json.dumps(sizes)
    until(lambda: small_disk.state(client, nonce) == "held", "it is held")
