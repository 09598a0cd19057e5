"""The contract of `RunnerPort`, on every way to reach a runner."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from dstack.adapters.process_identity import CoordinatorLock, boot_id, new_nonce
from dstack.errors import HostError, HostUnreachableError
from dstack.model import Demand, EntryKind, Nonce
from tests.support.runners.bench import (
    Bench,
    LocalOpener,
    Opener,
    Repository,
    first_of,
    gathered,
    order_of,
    peak_of,
    play,
    until,
)

Scene = Callable[[Bench], Awaitable[None]]
Play = Callable[[Scene], None]


@pytest.fixture(params=["local"])
def runner_openers(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opener:
    """One host of the test's own; further ways to reach one are further params."""
    assert request.param == "local"
    monkeypatch.setenv("DSTACK_SLOTS_DIR", str(tmp_path / "slots"))
    return LocalOpener(tmp_path / "host")


@pytest.fixture
def on_host(runner_openers: Opener, tmp_path: Path) -> Play:
    """Plays a scene with a bench of its own."""
    project = Repository(tmp_path)

    async def whole(scene: Scene) -> None:
        async with Bench(runner_openers, project) as bench:
            await scene(bench)

    return lambda scene: play(whole(scene))


# -- the host -----------------------------------------------------------------------------------------------------


def test_facts_are_those_of_the_host(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        client = await bench.client()
        for facts in (await client.facts(), await client.facts()):
            assert facts.boot_id == boot_id()
            assert facts.cpus >= 1
            assert facts.memory > 1 << 28
            assert facts.dir == bench.opener.directory

    on_host(scene)


def test_a_host_knows_for_sure_which_of_its_coordinators_have_ended(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        client = await bench.client()
        ids = [new_nonce() for _ in range(3)]
        assert list(await client.ended_coordinators(ids)) == []  # it has never heard of them, which says nothing
        root = Path(bench.opener.directory)
        with CoordinatorLock(root, ids[0]), CoordinatorLock(root, ids[1]):
            assert list(await client.ended_coordinators(ids)) == []
        with CoordinatorLock(root, ids[1]):
            assert list(await client.ended_coordinators(ids)) == [ids[0]]
            assert list(await client.ended_coordinators(["../coordinators/" + ids[0], "x", ""])) == []

    on_host(scene)


# -- code ---------------------------------------------------------------------------------------------------------


def test_code_is_sent_once_and_then_only_what_changed(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        client, project = await bench.client(), bench.project
        first = project.code.snapshot()
        assert await client.push_code("proj", first, project) > 300_000
        assert await client.push_code("proj", first, project) == 0
        project.write("hello.txt", b"hello again\n")
        assert 0 < await client.push_code("proj", project.code.snapshot(), project) < 2000

    on_host(scene)


def test_pushes_of_one_snapshot_at_the_same_time_are_one(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        client, project = await bench.client(), bench.project
        snapshot = project.code.snapshot()
        sent = await asyncio.gather(*(client.push_code("proj", snapshot, project) for _ in range(8)))
        assert project.bundles == 1
        assert sorted(sent)[:-1] == [0] * 7
        assert max(sent) > 300_000

    on_host(scene)


def test_a_cancelled_push_leaves_the_one_that_waits_for_it_alone(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        client, project = await bench.client(), bench.project
        snapshot = project.code.snapshot()
        first = asyncio.create_task(client.push_code("proj", snapshot, project))
        second = asyncio.create_task(client.push_code("proj", snapshot, project))
        await asyncio.sleep(0)
        first.cancel()
        await second
        assert first.cancelled() or first.done()
        assert await client.push_code("proj", snapshot, project) == 0

    on_host(scene)


def test_code_with_another_tree_is_refused(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        client, project = await bench.client(), bench.project
        snapshot = project.code.snapshot()
        forged = type(snapshot)(
            commit=snapshot.commit, tree="0" * 40, prefix="", head=None, branch=None, remote=None, dirty=True
        )
        with pytest.raises(HostError):
            await client.push_code("proj", forged, project)
        assert await client.push_code("proj", snapshot, project) > 0

    on_host(scene)


# -- the log and the exit -----------------------------------------------------------------------------------------


def test_every_byte_of_the_log_arrives(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        client = await bench.client()
        script = "printf '\\000\\377\\033[31m\\r\\n'; printf 'err\\n' >&2; cat hello.txt; printf 'no newline'"
        nonce, log, end = await bench.finished(client, script)
        assert log == b"\x00\xff\x1b[31m\r\nerr\nhello\nno newline"
        assert end.succeeded
        assert await gathered(client.follow(nonce, 7)) == log[7:]
        assert await gathered(client.follow(nonce, len(log))) == b""

    on_host(scene)


@pytest.mark.parametrize(
    ("script", "code", "number"), [("exit 0", 0, None), ("exit 7", 7, None), ("exit 255", 255, None)]
)
def test_the_exit_code_is_the_scripts(on_host: Play, script: str, code: int, number: int | None) -> None:
    async def scene(bench: Bench) -> None:
        _, _, end = await bench.finished(await bench.client(), script)
        assert (end.code, end.signal) == (code, number)
        assert end.succeeded == (code == 0)

    on_host(scene)


def test_a_signal_that_ended_the_job_is_told(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        _, _, end = await bench.finished(await bench.client(), "kill -KILL $$")
        assert end.signal == signal.SIGKILL or end.code == 128 + signal.SIGKILL
        assert not end.succeeded
        assert not end.stopped

    on_host(scene)


def test_arguments_and_both_environments_reach_the_job_unaltered(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        client = await bench.client()
        nasty = "a'b\"c$(echo x)`y`\\ \n;é"
        secret = nasty[::-1]
        script = 'printf %s "$1$V"; printf %s "$S" | sha256sum; printf %s "$S"'
        nonce = await bench.prepared(client, script, arguments=[nasty], environment={"V": nasty})
        assert await client.go(nonce, {"S": secret})
        digest = hashlib.sha256(secret.encode()).hexdigest()
        assert await gathered(client.follow(nonce, 0)) == f"{nasty}{nasty}{digest}  -\n***".encode()

    on_host(scene)


def test_stop_ends_the_whole_tree_and_says_so(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        client = await bench.client()
        nonce = await bench.started(client, "setsid sleep 1000 & echo up; sleep 1000")
        await first_of(client, nonce, b"up")
        end = await client.stop(nonce)
        assert end.stopped
        assert await client.wait(nonce) == end
        assert (await client.status(nonce)).state == "ended"

    on_host(scene)


def test_a_runner_shows_life_while_a_stop_takes_its_time(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        client = await bench.client()
        nonce = await bench.started(client, "trap '' TERM; echo ready; while :; do sleep 0.1; done")
        await first_of(client, nonce, b"ready")
        stopping = asyncio.create_task(client.stop(nonce))
        for _ in range(3):
            await client.pulse(30)
        assert not stopping.done()
        await client.stop(nonce, abort=True)
        assert (await stopping).stopped

    on_host(scene)


def test_stop_with_abort_does_not_wait_for_who_ignores_it(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        client = await bench.client()
        nonce = await bench.started(client, "trap '' TERM; echo up; while :; do sleep 1; done")
        await first_of(client, nonce, b"up")
        assert (await client.stop(nonce, abort=True)).stopped

    on_host(scene)


def test_a_job_whose_supervisor_was_killed_with_it_is_told_as_vanished(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        client = await bench.client()
        nonce = await bench.started(client, "echo pid $$ end; exec sleep 1000")
        job = (await first_of(client, nonce, b"end")).split()[1].decode()
        supervisor = f"{bench.opener.directory}/spool/{nonce}/supervisor.json"
        pid = f'$(sed "s/.*\\"pid\\": *\\([0-9]*\\).*/\\1/" {supervisor})'
        await bench.finished(client, f"kill -9 {pid} {job}")
        end = await client.wait(nonce)
        assert end.vanished
        assert end.code is None
        assert (await client.status(nonce)).state == "vanished"

    on_host(scene)


def test_stop_of_what_never_started_refuses_it(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        client = await bench.client()
        nonce = await bench.held(client)
        end = await client.stop(nonce)
        assert end.stopped
        assert end.code is None
        assert await client.verdict(nonce) == "refused"

    on_host(scene)


# -- hold, go, verdict --------------------------------------------------------------------------------------------


def test_a_dropped_attempt_is_refused_for_ever(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        client = await bench.client()
        nonce = await bench.prepared(client, "echo never")
        await client.drop(nonce)
        assert await client.verdict(nonce) == "refused"
        with contextlib.suppress(HostError):
            assert await client.go(nonce, {}) == 0.0
        assert await client.verdict(nonce) == "refused"

    on_host(scene)


def test_what_was_held_is_refused_once_its_connection_is_lost(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        first = await bench.client()
        nonce = await bench.prepared(first, "echo never", slots=1)
        await bench.cut(first)
        second = await bench.client()
        # The slot is free again as soon as the held supervisor has seen the loss.
        await second.hold(new_nonce(), Demand(slots=1))
        assert await second.verdict(nonce) == "refused"

    on_host(scene)


def test_a_verdict_of_an_unknown_attempt_is_refused_and_stays(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        client = await bench.client()
        nonce = new_nonce()
        assert await client.verdict(nonce) == "refused"
        end = await client.wait(nonce)
        assert end.code is None
        assert end.reason
        assert await client.verdict(nonce) == "refused"

    on_host(scene)


def test_hold_waits_for_a_slot_and_gets_it_when_one_is_free(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        first, second = await bench.client(), await bench.client()
        held = await bench.held(first, slots=1)
        waiting = asyncio.create_task(second.hold(new_nonce(), Demand(slots=1)))
        assert (await second.facts()).cpus
        assert not waiting.done()
        await first.drop(held)
        await waiting

    on_host(scene)


def test_a_cancelled_hold_takes_no_slot(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        client, other = await bench.client(), await bench.client()
        held = await bench.held(client, slots=1)
        for _ in range(10):
            waiting = asyncio.create_task(client.hold(new_nonce(), Demand(slots=1)))
            await asyncio.sleep(0)
            await other.facts()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await client.drop(held)
        await asyncio.wait_for(other.hold(new_nonce(), Demand(slots=1)), 30)

    on_host(scene)


def test_a_started_job_survives_the_loss_of_its_client(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        first = await bench.client()
        nonce = await bench.started(first, "echo one; while [ ! -e go ]; do sleep 0.05; done; echo two; exit 3")
        await first_of(first, nonce, b"one\n")
        following = asyncio.create_task(gathered(first.follow(nonce, 0)))
        waiting = asyncio.create_task(first.wait(nonce))
        await first.status(nonce)
        await bench.cut(first)
        for pending in (following, waiting):
            with pytest.raises(HostUnreachableError):
                await pending
        with pytest.raises(HostUnreachableError):
            await first.status(nonce)
        second = await bench.client()
        assert await second.verdict(nonce) == "started"
        assert (nonce, "running") in [(each.nonce, each.state) for each in await second.spool()]
        (Path(bench.opener.directory) / "spool" / nonce / "work" / "go").touch()
        assert await gathered(second.follow(nonce, 4)) == b"two\n"
        assert (await second.wait(nonce)).code == 3

    on_host(scene)


def test_two_clients_follow_one_job(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        first, second = await bench.client(), await bench.client()
        nonce = await bench.started(first, "for i in $(seq 200); do echo line $i; done; exit 4")
        logs = await asyncio.gather(*(gathered(client.follow(nonce, 0)) for client in (first, second, first)))
        assert set(logs) == {b"".join(b"line %d\n" % i for i in range(1, 201))}
        ends = await asyncio.gather(first.wait(nonce), second.wait(nonce))
        assert [end.code for end in ends] == [4, 4]

    on_host(scene)


# -- streams ------------------------------------------------------------------------------------------------------


def test_two_hundred_megabytes_pass_in_bounded_memory(on_host: Play) -> None:
    size, line = 200_000_000, b"0123456789abcdef0123456789abcdef\n"
    expected = hashlib.sha256()
    for start in range(0, size, len(line) * 10_000):
        expected.update((line * 10_000)[: size - start])

    async def scene(bench: Bench) -> None:
        client = await bench.client()
        nonce = await bench.started(client, f"yes {line.decode().strip()} | head -c {size}")
        Path("/proc/self/clear_refs").write_text("5")  # the high water mark starts anew
        before, digest = peak_of("self"), hashlib.sha256()
        async with aclosing(client.follow(nonce, 0)) as chunks:
            async for chunk in chunks:
                assert 0 < len(chunk) <= 256 * 1024
                digest.update(chunk)
        assert digest.digest() == expected.digest()
        assert peak_of("self") - before < 48 << 20
        peak = bench.peak(client)
        assert peak is None or peak < 80 << 20

    on_host(scene)


def test_a_consumer_that_stops_holds_nothing_else_up(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        client = await bench.client()
        nonce = await bench.started(client, "head -c 40000000 /dev/zero")
        end = await client.wait(nonce)
        async with aclosing(client.follow(nonce, 0)) as idle:
            length = len(await anext(idle))
            # The window of this stream fills up; all else goes on, other streams included.
            for _ in range(3):
                assert len(await gathered(client.follow(nonce, 0))) == 40_000_000
                assert await client.verdict(nonce) == "started"
            async for chunk in idle:
                length += len(chunk)
        assert length == 40_000_000
        assert end.succeeded

    on_host(scene)


def test_a_follow_that_is_left_midway_leaves_the_connection_whole(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        client = await bench.client()
        nonce = await bench.started(client, "echo up; yes | head -c 20000000; sleep 1000")
        for _ in range(5):
            async with aclosing(client.follow(nonce, 0)) as chunks:
                assert (await anext(chunks)).startswith(b"up\n")
        task = asyncio.create_task(gathered(client.follow(nonce, 0)))
        await client.status(nonce)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await client.stop(nonce, abort=True)).stopped
        assert len(await gathered(client.follow(nonce, 0))) >= 3

    on_host(scene)


def test_a_cancelled_wait_leaves_the_job_and_the_connection_alone(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        client = await bench.client()
        nonce = await bench.started(client, "while [ ! -e go ]; do sleep 0.05; done")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.wait(nonce), 0.2)
        assert (await client.status(nonce)).state == "running"
        (Path(bench.opener.directory) / "spool" / nonce / "work" / "go").touch()
        assert (await client.wait(nonce)).succeeded

    on_host(scene)


# -- artifacts and inputs -----------------------------------------------------------------------------------------


def test_artifacts_come_back_as_they_were_left(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        client = await bench.client()
        script = "mkdir -p out/empty; printf one > out/a; head -c 3000000 /dev/urandom > out/big; ln -s a out/link"
        nonce, _, end = await bench.finished(client, script, artifacts=["out"])
        assert end.succeeded
        manifest = await client.manifest(nonce)
        assert not manifest.partial
        by_path = {entry.path: entry for entry in manifest.entries}
        assert {"out/a", "out/big", "out/empty", "out/link"} <= set(by_path)
        assert by_path["out/link"].kind is EntryKind.LINK
        for path in ("out/a", "out/big"):
            entry = by_path[path]
            body = await gathered(client.read_pack(nonce, entry.pack))
            assert hashlib.sha256(body[entry.offset : entry.offset + entry.size]).hexdigest() == entry.sha256

    on_host(scene)


def test_an_artifact_that_is_missing_fails_the_job_by_name(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        _, _, end = await bench.finished(await bench.client(), "true", artifacts=["nowhere"])
        assert end.missing == ("nowhere",)
        assert not end.succeeded

    on_host(scene)


async def _pieces(body: bytes, size: int = 70_000) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


def _named(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def test_blobs_are_verified_kept_and_laid_as_inputs(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        client = await bench.client()
        body = bytes(range(256)) * 8000
        assert list(await client.missing_blobs([_named(body)])) == [_named(body)]
        with pytest.raises(HostError):
            await client.push_blobs([(_named(body), len(body))], _pieces(body[:-1] + b"!"))
        assert list(await client.missing_blobs([_named(body)])) == [_named(body)]
        await client.push_blobs([(_named(body), len(body))], _pieces(body))
        assert list(await client.missing_blobs([_named(body), "0" * 64])) == ["0" * 64]
        entry = {"path": "in/x", "kind": "file", "mode": 0o644, "size": len(body), "sha256": _named(body)}
        _, log, _ = await bench.finished(client, "sha256sum < in/x | cut -c1-64", inputs=[entry])
        assert log.decode().strip() == _named(body)

    on_host(scene)


def test_a_blob_whose_source_fails_is_given_up_and_the_connection_goes_on(on_host: Play) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"some"
        raise ValueError("the bucket went away")

    async def scene(bench: Bench) -> None:
        client = await bench.client()
        with pytest.raises(ValueError, match="the bucket went away"):
            await client.push_blobs([(_named(b"something"), 9)], broken())
        assert list(await client.missing_blobs([_named(b"something")])) == [_named(b"something")]

    on_host(scene)


def test_more_digests_than_a_message_holds(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        client = await bench.client()
        digests = [_named(b"%d" % i) for i in range(20_000)]
        assert list(await client.missing_blobs(digests)) == digests

    on_host(scene)


def test_ten_thousand_inputs_are_more_than_a_frame_and_are_laid(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        client = await bench.client()
        entries = [
            {"path": f"in/some-folder-with-a-name/{i:05d}", "kind": "link", "mode": 0o777, "target": "../" + "t" * 40}
            for i in range(10_000)
        ]
        with pytest.raises(HostError, match="longer than a frame"):
            await bench.prepared(client, "true", inputs=entries)
        lines = b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)
        await client.push_blobs([(_named(lines), len(lines))], _pieces(lines))
        listed = {"kind": "entries", "sha256": _named(lines), "size": len(lines)}
        _, log, end = await bench.finished(client, "ls in/some-folder-with-a-name | wc -l", inputs=[listed])
        assert end.succeeded
        assert int(log) == 10_000

    on_host(scene)


def test_a_prepare_that_fails_says_why_and_writes_it_to_the_log(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        client = await bench.client()
        snapshot = bench.project.code.snapshot()
        nonce = await bench.held(client)
        with pytest.raises(HostError):
            await client.prepare(order_of(snapshot, "true", nonce=nonce))  # the code was never pushed
        await client.drop(nonce)
        log = Path(bench.opener.directory) / "spool" / nonce / "log"
        assert b"prepare" in log.read_bytes()

    on_host(scene)


def test_release_forgets_an_ended_attempt(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        client = await bench.client()
        nonce, _, _ = await bench.finished(client, "true")
        assert (nonce, "ended") in [(each.nonce, each.state) for each in await client.spool()]
        await client.release(nonce)
        assert nonce not in [each.nonce for each in await client.spool()]

    on_host(scene)


def test_release_has_the_host_forget_what_it_need_not_keep(on_host: Play) -> None:
    """Seen by what a receiver that died two days ago left in the store: one look removes all that must go."""

    async def scene(bench: Bench) -> None:
        client = await bench.client()
        left = Path(bench.opener.directory) / "store" / ".tmp-1-1-a"
        left.parent.mkdir(exist_ok=True)
        left.write_bytes(b"half")
        os.utime(left, (1e9, 1e9))
        nonce, _, _ = await bench.finished(client, "true")
        await client.release(nonce)
        assert not left.exists()

    on_host(scene)


# -- the connection -----------------------------------------------------------------------------------------------


def test_a_closed_client_fails_what_was_under_way_and_ends_its_runner(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        first, second = await bench.client(), await bench.client()
        nonce: Nonce = await bench.started(first, "while [ ! -e go ]; do sleep 0.05; done")
        waiting = asyncio.create_task(first.wait(nonce))
        held = await bench.held(first)
        await first.status(nonce)
        await first.close()
        with pytest.raises(HostUnreachableError):
            await waiting
        assert await second.verdict(nonce) == "started"

        async def refused() -> bool:
            return (await second.status(held)).state == "unknown"

        await until(refused, "the held attempt refuses")
        await second.stop(nonce, abort=True)

    on_host(scene)


def test_fifty_requests_at_once_are_all_answered(on_host: Play) -> None:
    async def scene(bench: Bench) -> None:
        client = await bench.client()
        nonces = [new_nonce() for _ in range(50)]
        found = await asyncio.gather(*(client.verdict(nonce) for nonce in nonces), *(client.status(n) for n in nonces))
        assert found[:50] == ["refused"] * 50

    on_host(scene)
