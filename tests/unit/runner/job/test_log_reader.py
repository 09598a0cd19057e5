"""Every byte of a job's output, in order, to the last line, in bounded memory."""

from __future__ import annotations

import hashlib

from dstack import wire
from tests.support.runners.client import until
from tests.support.runners.host import MEBIBYTE, Host, resident


def test_line_of_100_megabytes_comes_whole_in_bounded_memory(host: Host) -> None:
    client = host.connect()
    client.call("hello")
    before = resident(client.process.pid)
    nonce = host.start(client, "head -c 100000000 /dev/zero | tr '\\0' x; echo end")
    digest, size = hashlib.sha256(), 0
    for piece in client.ask("follow", nonce=nonce, offset=0).data():
        digest.update(piece)
        size += len(piece)
    assert size == 100_000_004
    assert digest.hexdigest() == hashlib.sha256(b"x" * 100_000_000 + b"end\n").hexdigest()
    assert resident(client.process.pid) - before < 32 * MEBIBYTE


def test_coordinator_that_does_not_read_costs_no_memory_and_no_job_time(host: Host) -> None:
    client = host.connect()
    client.call("hello")
    before = resident(client.process.pid)
    nonce = host.start(client, "head -c 50000000 /dev/zero; echo done > finished")
    stream = client.ask("follow", nonce=nonce, offset=0, window=MEBIBYTE)
    until(lambda: (host.folder(nonce) / "work" / "finished").exists(), "the job ended unread")
    pieces: list[bytes] = []
    while sum(map(len, pieces)) < MEBIBYTE:
        pieces.append(next(stream.data()))
    assert client.call("status", nonce=nonce)["log"] == 50_000_000
    assert stream.frames.empty()
    assert resident(client.process.pid) - before < 32 * MEBIBYTE
    client.write(wire.pack_message({"op": "credit", "request": stream.number, "bytes": 10}))
    assert stream.frames.get(timeout=30) == bytes(10)
    client.write(wire.pack_message({"op": "credit", "request": stream.number, "bytes": 1 << 40}))
    assert sum(map(len, stream.data())) == 50_000_000 - MEBIBYTE - 10


def test_binary_log_is_byte_identical(host: Host) -> None:
    client = host.connect()
    log, _ = host.run(client, "head -c 3000000 /dev/urandom | tee copy; printf '\\000\\377\\r\\033[2J' | tee -a copy")
    nonce = client.call("spool")["attempts"][0]["nonce"]
    assert log == (host.folder(nonce) / "work" / "copy").read_bytes()
    assert log.endswith(b"\0\xff\r\033[2J")


def test_last_line_of_200_short_jobs(host: Host) -> None:
    client = host.connect()
    for number in range(200):
        log, end = host.run(client, f"echo out; echo err >&2; printf 'last {number}'")
        assert log == f"out\nerr\nlast {number}".encode()
        assert end["code"] == 0


def test_follow_begins_at_any_offset_and_any_number_may_follow(host: Host) -> None:
    client = host.connect()
    nonce = host.start(client, "printf 0123456789; while [ ! -e go ]; do sleep 0.02; done; printf abc")
    streams = [client.ask("follow", nonce=nonce, offset=offset) for offset in range(11)]
    (host.folder(nonce) / "work" / "go").touch()
    assert [b"".join(stream.data()) for stream in streams] == [b"0123456789abc"[offset:] for offset in range(11)]


def test_output_comes_while_the_job_runs(host: Host) -> None:
    client = host.connect()
    nonce = host.start(client, "echo one; while [ ! -e go ]; do sleep 0.02; done; echo two")
    data = client.ask("follow", nonce=nonce, offset=0).data()
    assert next(data) == b"one\n"
    (host.folder(nonce) / "work" / "go").touch()
    assert b"".join(data) == b"two\n"


def test_output_after_the_script_went_on_in_the_background_is_kept(host: Host) -> None:
    log, _ = host.run(host.connect(), "(trap 'echo ended; exit' TERM; while :; do sleep 0.05 || :; done) & sleep 0.2")
    assert log.endswith(b"ended\n")


def test_long_streams_do_not_hold_up_a_question(host: Host) -> None:
    """With a window, a follower that is not served leaves the connection free for all others."""
    client = host.connect()
    nonce = host.start(client, "head -c 20000000 /dev/zero")
    for _ in range(4):
        client.ask("follow", nonce=nonce, offset=0, window=1000)
    assert client.call("hello")["wire"] == wire.WIRE_VERSION
