"""The coordinator's side of a runner against hosts that do anything but what they should."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from dstack import wire
from dstack.adapters.runner.channel import Channel
from dstack.adapters.runner.client import RunnerClient
from dstack.adapters.runner.start import MAX_NOISE_BYTES, Program, start_runner
from dstack.adapters.runner.streams import STREAM_WINDOW_BYTES
from dstack.errors import HostError, HostUnreachableError
from dstack.model import Demand, Nonce
from dstack.wire.job_messages import DropRequest, SightingRequest, StatusRequest
from dstack.wire.message_form import DoneAnswer
from tests.support.runners.scripted import BOOTSTRAP, HELLO, ZIPAPP, FarSide, ScriptedTransport, against

N = Nonce("n" * 32)


async def connects(client: RunnerClient) -> None:
    await client.connect()


def fails(kind: type[Exception], match: str) -> Callable[[RunnerClient], Any]:
    async def scene(client: RunnerClient) -> None:
        with pytest.raises(kind, match=match) as caught:
            await client.connect()
        assert type(caught.value) is kind
        assert str(caught.value).isprintable()

    return scene


# -- the start ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "noise", [b"", b"Welcome!\n", b"no newline", b"\x1b[31m" + b"x" * (MAX_NOISE_BYTES - 5)], ids=range(4)
)
def test_noise_before_the_sentinel_is_skipped(noise: bytes) -> None:
    async def script(far: FarSide) -> None:
        await far.say(noise)
        await far.start()

    async def scene(client: RunnerClient) -> None:
        assert (await client.facts()).hostname == "h"

    against(script, scene)


def test_more_noise_than_allowed_is_quoted_at_its_end() -> None:
    async def script(far: FarSide) -> None:
        far.stderr = "said on stderr"
        await far.say(b"x" * (MAX_NOISE_BYTES + 1) + b"\x1b[2J the end")

    scene = fails(HostError, r"more than 64 KiB.*x\s+\[2J the end; said on stderr")
    assert against(script, scene).closed


def test_the_zipapp_is_pushed_where_the_host_lacks_it_and_nowhere_else() -> None:
    async def script(far: FarSide) -> None:
        header = await far.header()
        assert (header["runner"], header["size"], header["dir"]) == (ZIPAPP[1], len(ZIPAPP[0]), "~/.dstack")
        await far.say(f'\n{header["sentinel"]}{{"need": true}}\n'.encode())
        assert await far.take(len(ZIPAPP[0])) == ZIPAPP[0]
        await far.say(f'\n{header["sentinel"]}{{"ready": true}}\n'.encode())
        await far.ok(await far.request(wire.HELLO), HELLO)

    against(script, connects)


@pytest.mark.parametrize("said", ["no list", 7, None, {}, [{}, 7, "", "/a\x1b[2J b", *["/x" * 500] * 40]])
def test_folders_that_a_host_says_were_open_are_few_short_and_clean(said: object) -> None:
    async def script(far: FarSide) -> None:
        header = await far.header()
        await far.say(f"\n{header['sentinel']}{json.dumps({'ready': True, 'closed': said})}\n".encode())
        await far.ok(await far.request(wire.HELLO), HELLO)

    async def scene(client: RunnerClient) -> None:
        await client.connect()
        assert client.closed == (("/a [2J b", *["/x" * 100] * 12) if isinstance(said, list) else ())

    against(script, scene)


def test_frames_that_come_with_the_last_line_of_the_bootstrap_are_kept() -> None:
    async def script(far: FarSide) -> None:
        header = await far.header()
        answer = wire.pack_message({"id": 1, "ok": HELLO})
        await far.say(f'\n{header["sentinel"]}{{"ready": true}}\n'.encode() + answer)

    async def scene(client: RunnerClient) -> None:
        assert (await client.facts()).hostname == "h"

    against(script, scene)


def test_each_start_has_a_sentinel_of_its_own() -> None:
    seen: set[str] = set()

    async def script(far: FarSide) -> None:
        seen.add((await far.header())["sentinel"])
        await far.end()

    for _ in range(3):
        against(script, fails(HostError, "ended before"))
    assert len(seen) == 3
    assert all(len(sentinel) >= 32 for sentinel in seen)


def test_an_error_of_the_bootstrap_is_given_with_its_hint() -> None:
    async def script(far: FarSide) -> None:
        header = await far.header()
        answer = {"error": "python3 is 3.6,\x1b too old", "hint": "install Python 3.9"}
        await far.say(f"\n{header['sentinel']}{json.dumps(answer)}\n".encode())

    async def scene(client: RunnerClient) -> None:
        with pytest.raises(HostError, match=r"box: python3 is 3.6, too old") as caught:
            await client.connect()
        assert caught.value.hint == "install Python 3.9"

    against(script, scene)


def test_a_host_without_python_is_named() -> None:
    async def script(far: FarSide) -> None:
        await far.header()
        far.stderr = "sh: 1: python3: not found"
        await far.end(127)

    async def scene(client: RunnerClient) -> None:
        with pytest.raises(HostError, match="python3 was not found on box") as caught:
            await client.connect()
        assert "3.9" in str(caught.value.hint)

    against(script, scene)


def test_an_early_end_quotes_noise_and_stderr() -> None:
    async def script(far: FarSide) -> None:
        far.stderr = "This account is not available"
        await far.say(b"Go away.\n")
        await far.end(1)

    against(script, fails(HostError, r"exit status 1; it said: This account.*heard instead: Go away\."))


@pytest.mark.parametrize("line", [b"no json", b"[1]", b"[" * 60_000, b"\xff\xfe", b"x" * 70_000], ids=range(5))
def test_nonsense_in_place_of_the_bootstraps_answer(line: bytes) -> None:
    async def script(far: FarSide) -> None:
        header = await far.header()
        await far.say(f"\n{header['sentinel']}".encode() + line + b"\n")

    against(script, fails(HostError, "the bootstrap's answer is"))


def test_a_host_that_says_nothing_is_given_up() -> None:
    async def play() -> None:
        far = FarSide()
        far.stuck = True
        program = Program(bootstrap=BOOTSTRAP, zipapp=ZIPAPP[0], sha256=ZIPAPP[1], directory="d")
        with pytest.raises(HostUnreachableError, match="nothing came from python3"):
            await start_runner(ScriptedTransport(far), program, deadline=0.05)

    asyncio.run(play())


def test_a_connection_lost_during_the_start_is_unreachable() -> None:
    async def script(far: FarSide) -> None:
        await far.header()
        await far.lose()

    assert against(script, fails(HostUnreachableError, "lost")).closed


@pytest.mark.parametrize(
    ("spoken", "hint"), [(wire.WIRE_VERSION + 1, "this machine"), (wire.WIRE_VERSION - 1, "there is older")]
)
def test_another_wire_version_says_which_side_to_update(spoken: int, hint: str) -> None:
    async def scene(client: RunnerClient) -> None:
        with pytest.raises(HostError, match=f"version {spoken} of the wire") as caught:
            await client.connect()
        assert hint in str(caught.value.hint)

    against(lambda far: far.start(wire=spoken), scene)


@pytest.mark.parametrize(
    "wrong",
    [
        {"wire": "1"},
        {"cpus": "4"},
        {"cpus": -1},
        {"memory": 1.5},
        {"gpus": {}},
        {"gpus": [1]},
        {"hostname": "a\x1b[2J"},
        {"user": "x" * 5000},
        {"boot_id": ""},
        {"dir": "relative"},
        {"docker": 1},
        {"uid": None},
    ],
)
def test_facts_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    against(lambda far: far.start(**wrong), fails(HostError, "makes no sense"))


# -- hostile frames -----------------------------------------------------------------------------------------------

GARBAGE = {
    "text": b"Traceback (most recent call last):\n",
    "unknown kind": wire.HEADER.pack(9, 3) + b"abc",
    "too long": wire.HEADER.pack(wire.MESSAGE, wire.MAX_FRAME_BYTES + 1),
    "no JSON": wire.HEADER.pack(wire.MESSAGE, 3) + b"abc",
    "deep JSON": wire.HEADER.pack(wire.MESSAGE, 200_000) + b"[" * 200_000,
    "a list": wire.HEADER.pack(wire.MESSAGE, 2) + b"[]",
    "no id": wire.pack_message({"ok": {}}),
    "unknown id": wire.pack_message({"id": 77, "ok": {}}),
    "id is true": wire.pack_message({"id": True, "ok": {}}),
    "id is a list": wire.pack_message({"id": [2], "ok": {}}),
    "neither ok nor error": wire.pack_message({"id": 2}),
    "ok is no object": wire.pack_message({"id": 2, "ok": 1}),
    "short data": wire.HEADER.pack(wire.DATA, 3) + b"abc",
    "data for nobody": wire.pack_data(77, b"x"),
    "data for no stream": wire.pack_data(2, b"x"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_ends_the_connection_and_fails_every_request(name: str) -> None:
    asked = asyncio.Event()

    async def script(far: FarSide) -> None:
        await far.start()
        assert (await far.request(wire.WAIT))["id"] == 2
        asked.set()
        await far.request(wire.FOLLOW)
        await far.say(GARBAGE[name])

    async def scene(client: RunnerClient) -> None:
        await client.connect()
        waiting = asyncio.create_task(client.wait(N))
        await asked.wait()
        with pytest.raises(HostError, match="broke the protocol"):
            _ = [chunk async for chunk in client.follow(N, 0)]
        with pytest.raises(HostError, match="broke the protocol"):
            await waiting
        with pytest.raises(HostError, match="broke the protocol"):
            await client.status(N)

    assert against(script, scene).closed


def test_more_than_the_window_ends_the_connection() -> None:
    async def script(far: FarSide) -> None:
        await far.start()
        request = await far.request(wire.FOLLOW)
        assert request["window"] == STREAM_WINDOW_BYTES
        for _ in range(STREAM_WINDOW_BYTES // wire.CHUNK_BYTES + 1):
            await far.data(request, b"x" * wire.CHUNK_BYTES)

    async def scene(client: RunnerClient) -> None:
        async with aclosing(client.follow(N, 0)) as chunks:
            assert await anext(chunks)
            with pytest.raises(HostError, match="more bytes"):
                await client.wait(N)

    against(script, scene)


ANSWERS: dict[str, tuple[str, Callable[[RunnerClient], Any], list[dict[str, Any]]]] = {
    "go": (
        wire.GO,
        lambda c: c.go(N, {}),
        [{}, {"started": 1}, {"started": "true"}, *({"started": True, "at": at} for at in (None, 0, "1", True))],
    ),
    "verdict": (wire.VERDICT, lambda c: c.verdict(N), [{}, {"verdict": "maybe"}, {"verdict": []}]),
    "status": (wire.STATUS, lambda c: c.status(N), [{"state": "odd", "log": 0}, {"state": "held", "log": -1}]),
    "spool": (wire.SPOOL, lambda c: c.spool(), [{}, {"attempts": [{"nonce": "../x", "state": "held"}]}]),
    "wait": (
        wire.WAIT,
        lambda c: c.wait(N),
        [
            {},
            {"exit": None},
            {"exit": {"code": "0"}},
            {"exit": {"code": 256}},
            {"exit": {"code": None}},
            {"exit": {"code": None, "signal": 0}},
            {"exit": {"code": 0, "missing": "x"}},
        ],
    ),
    "blobs": (
        wire.BLOBS_MISSING,
        lambda c: c.missing_blobs(["a" * 64]),
        [{}, {"missing": ["b" * 64]}, {"missing": [1]}, {"missing": "a" * 64}],
    ),
}


@pytest.mark.parametrize(("name", "index"), [(name, i) for name, case in ANSWERS.items() for i in range(len(case[2]))])
def test_answers_that_make_no_sense_are_refused_and_the_connection_goes_on(name: str, index: int) -> None:
    op, ask, answers = ANSWERS[name]

    async def script(far: FarSide) -> None:
        await far.start()
        await far.ok(await far.request(op), answers[index])
        await far.ok(await far.request(wire.DROP), {})

    async def scene(client: RunnerClient) -> None:
        with pytest.raises(HostError, match="makes no sense"):
            await ask(client)
        await client.drop(N)

    against(script, scene)


def test_a_refusal_is_told_in_safe_words() -> None:
    async def script(far: FarSide) -> None:
        await far.start()
        request = await far.request(wire.DROP)
        error = {"kind": "busy", "message": "no\x1b]0;evil\x07\nroom" + "x" * 9000, "hint": "wait"}
        await far.say(wire.pack_message({"id": request["id"], "error": error}))

    async def scene(client: RunnerClient) -> None:
        with pytest.raises(HostError, match=r"box: no \]0;evil room") as caught:
            await client.drop(N)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 3000
        assert caught.value.hint == "wait"

    against(script, scene)


# -- the connection -----------------------------------------------------------------------------------------------


def test_a_lost_connection_fails_every_request_with_unreachable() -> None:
    async def script(far: FarSide) -> None:
        await far.start()
        for op in (wire.WAIT, wire.HOLD, wire.DROP):
            await far.request(op)
        await far.lose()

    async def scene(client: RunnerClient) -> None:
        await client.connect()
        asked = [asyncio.create_task(ask) for ask in (client.wait(N), client.hold(N, Demand(slots=1)), client.drop(N))]
        for task in asked:
            with pytest.raises(HostUnreachableError, match="lost"):
                await task
        with pytest.raises(HostUnreachableError, match="lost"):
            await client.verdict(N)

    against(script, scene)


def test_the_end_of_a_runner_is_unreachable_with_its_last_words() -> None:
    async def script(far: FarSide) -> None:
        await far.start()
        await far.request(wire.VERDICT)
        far.stderr = "MemoryError"
        await far.end(1)

    async def scene(client: RunnerClient) -> None:
        with pytest.raises(HostUnreachableError, match="exit status 1; it said: MemoryError"):
            await client.verdict(N)

    against(script, scene)


@pytest.mark.parametrize("stuck", [False, True])
def test_a_request_has_a_deadline_also_while_the_host_reads_nothing(stuck: bool) -> None:
    async def play() -> None:
        far = FarSide()
        far.stuck = stuck
        channel = Channel(ScriptedTransport(far), b"")
        with pytest.raises(HostUnreachableError, match="did not answer 'status' within"):
            await channel.ask(StatusRequest(nonce=N), deadline=0.05)
        await channel.close()

    asyncio.run(asyncio.wait_for(play(), 30))


def test_a_late_answer_to_a_request_that_was_given_up_is_dropped() -> None:
    async def play() -> None:
        far = FarSide()
        channel = Channel(ScriptedTransport(far), b"")
        with pytest.raises(HostUnreachableError):
            await channel.ask(StatusRequest(nonce=N), deadline=0.05)
        first = await far.request(wire.STATUS)
        second = asyncio.create_task(channel.ask(DropRequest(nonce=N)))
        request = await far.request(wire.DROP)
        await far.ok(first, {"state": "held"})
        await far.ok(request, {"fine": 1})
        assert await second == DoneAnswer()
        await channel.close()

    asyncio.run(asyncio.wait_for(play(), 30))


def test_cancelled_requests_leave_whole_frames_behind() -> None:
    async def play() -> None:
        far = FarSide()
        channel = Channel(ScriptedTransport(far), b"")
        for steps in range(30):
            task = asyncio.create_task(channel.ask(SightingRequest(nonce=N, account="x" * 1000)))
            for _ in range(steps % 6):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        asked = asyncio.create_task(channel.ask(DropRequest(nonce=N)))
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["op"] != wire.DROP:
            seen.append(wire.unpack_message((await far.frame()).payload))
        await far.ok(seen[-1], {})
        await asked
        assert {message["op"] for message in seen} >= {wire.SIGHTING, wire.DROP}
        await channel.close()

    asyncio.run(asyncio.wait_for(play(), 30))


def test_answers_in_any_order_reach_who_asked() -> None:
    async def script(far: FarSide) -> None:
        await far.start()
        asked = [await far.request(wire.VERDICT) for _ in range(4)]
        for request in reversed(asked):
            await far.ok(request, {"verdict": "started" if request["nonce"] in ("0", "2") else "refused"})

    async def scene(client: RunnerClient) -> None:
        await client.connect()
        found = await asyncio.gather(*(client.verdict(Nonce(str(i))) for i in range(4)))
        assert found == ["started", "refused", "started", "refused"]

    against(script, scene)


# -- streams ------------------------------------------------------------------------------------------------------


def test_credit_is_given_for_what_was_consumed_and_no_more() -> None:
    total = 3 * STREAM_WINDOW_BYTES
    seen = {"sent": 0, "allowed": STREAM_WINDOW_BYTES}

    async def script(far: FarSide) -> None:
        await far.start()
        request = await far.request(wire.FOLLOW)
        while seen["sent"] < total:
            if seen["sent"] == seen["allowed"]:
                message = await far.request(wire.CREDIT)
                assert "id" not in message
                assert message["request"] == request["id"]
                seen["allowed"] += message["bytes"]
            length = min(wire.CHUNK_BYTES, seen["allowed"] - seen["sent"], total - seen["sent"])
            seen["sent"] += length
            await far.data(request, b"x" * length)
        await far.ok(request, {"exit": None, "length": total})
        while (message := wire.unpack_message((await far.frame()).payload))["op"] == wire.CREDIT:
            seen["allowed"] += message["bytes"]
        assert seen["allowed"] <= total + STREAM_WINDOW_BYTES
        await far.ok(message, {"verdict": "started"})

    async def scene(client: RunnerClient) -> None:
        async with aclosing(client.follow(N, 0)) as chunks:
            assert sum([len(chunk) async for chunk in chunks]) == total
        await client.verdict(N)

    against(script, scene)


def test_a_stream_that_nobody_reads_delays_no_other_request() -> None:
    async def script(far: FarSide) -> None:
        await far.start()
        request = await far.request(wire.FOLLOW)
        for _ in range(STREAM_WINDOW_BYTES // wire.CHUNK_BYTES):
            await far.data(request, b"x" * wire.CHUNK_BYTES)
        for _ in range(20):
            await far.ok(await far.request(wire.VERDICT), {"verdict": "started"})
        await far.ok(request, {})

    async def scene(client: RunnerClient) -> None:
        async with aclosing(client.follow(N, 0)) as chunks:
            got = len(await anext(chunks))
            for _ in range(20):
                assert await client.verdict(N) == "started"
            got += sum([len(chunk) async for chunk in chunks])
        assert got == STREAM_WINDOW_BYTES

    against(script, scene)


def test_a_stream_that_is_left_is_cancelled_at_the_host_and_its_rest_dropped() -> None:
    async def script(far: FarSide) -> None:
        await far.start()
        request = await far.request(wire.PACK_READ)
        await far.data(request, b"some")
        cancel = await far.request(wire.CANCEL)
        assert cancel["request"] == request["id"]
        await far.data(request, b"more")
        error = {"kind": "cancelled", "message": "cancelled", "hint": ""}
        await far.say(wire.pack_message({"id": request["id"], "error": error}))
        await far.ok(cancel, {})
        await far.ok(await far.request(wire.VERDICT), {"verdict": "refused"})

    async def scene(client: RunnerClient) -> None:
        async with aclosing(client.read_pack(N, "p")) as chunks:
            assert await anext(chunks) == b"some"
        assert await client.verdict(N) == "refused"

    against(script, scene)


def test_bytes_before_a_loss_are_given_then_the_loss() -> None:
    async def script(far: FarSide) -> None:
        await far.start()
        request = await far.request(wire.FOLLOW)
        await far.data(request, b"last words")
        await far.lose_after_read()

    async def scene(client: RunnerClient) -> None:
        async with aclosing(client.follow(N, 0)) as chunks:
            assert await anext(chunks) == b"last words"
            with pytest.raises(HostUnreachableError):
                await anext(chunks)

    against(script, scene)


def test_single_bytes_are_joined_while_nobody_reads() -> None:
    async def script(far: FarSide) -> None:
        await far.start()
        request = await far.request(wire.FOLLOW)
        await far.say(b"".join(wire.pack_data(request["id"], b"%d" % (i % 10)) for i in range(50_000)))
        await far.ok(await far.request(wire.VERDICT), {"verdict": "started"})
        await far.ok(request, {})

    async def scene(client: RunnerClient) -> None:
        async with aclosing(client.follow(N, 0)) as chunks:
            first = await anext(chunks)
            await client.verdict(N)
            rest = [chunk async for chunk in chunks]
        assert first + b"".join(rest) == b"0123456789" * 5000
        assert len(rest) < 10

    against(script, scene)


def test_an_upload_ends_when_the_host_has_heard_enough() -> None:
    sent = []

    async def endless() -> Any:
        while True:
            sent.append(1)
            yield b"x" * 1000

    async def script(far: FarSide) -> None:
        await far.start()
        request = await far.request(wire.BLOBS_PUSH)
        assert (await far.frame()).kind == wire.DATA
        error = {"kind": "hash", "message": "that is not it", "hint": ""}
        await far.say(wire.pack_message({"id": request["id"], "error": error}))

    async def scene(client: RunnerClient) -> None:
        with pytest.raises(HostError, match="that is not it"):
            await client.push_blobs([("a" * 64, 5)], endless())

    against(script, scene)
    assert len(sent) < 10_000


def test_uploads_come_in_frames_of_a_quarter_megabyte_with_an_end() -> None:
    body = bytes(range(256)) * 4000
    got: list[bytes] = []

    async def script(far: FarSide) -> None:
        await far.start()
        request = await far.request(wire.BLOBS_PUSH)
        while not got or got[-1]:
            number, data = wire.unpack_data((await far.frame()).payload)
            assert number == request["id"]
            got.append(data)
        await far.ok(request, {})

    async def scene(client: RunnerClient) -> None:
        async def chunks() -> Any:
            yield body
            yield b""

        await client.push_blobs([("a" * 64, len(body))], chunks())

    against(script, scene)
    assert b"".join(got) == body
    assert max(map(len, got)) <= wire.CHUNK_BYTES


def test_a_cancelled_hold_is_cancelled_and_dropped_at_the_host() -> None:
    asked = asyncio.Event()

    async def script(far: FarSide) -> None:
        await far.start()
        request = await far.request(wire.HOLD)
        asked.set()
        await far.ok(await far.request(wire.VERDICT), {"verdict": "refused"})
        assert (await far.request(wire.CANCEL))["request"] == request["id"]
        assert (await far.request(wire.DROP))["nonce"] == N
        await far.ok(await far.request(wire.VERDICT), {"verdict": "started"})

    async def scene(client: RunnerClient) -> None:
        await client.connect()
        waiting = asyncio.create_task(client.hold(N, Demand(slots=1)))
        await asked.wait()
        assert await client.verdict(N) == "refused"
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await client.verdict(N) == "started"

    against(script, scene)


# -- manifests ----------------------------------------------------------------------------------------------------

FOLDER = {"path": "out", "kind": "folder", "mode": 0o755}
LINK = {"path": "out/l", "kind": "link", "mode": 0o777, "target": "x"}


def manifest_scene(body: bytes, answer: dict[str, Any], step: int) -> tuple[Any, Any]:
    async def script(far: FarSide) -> None:
        await far.start()
        request = await far.request(wire.MANIFEST)
        for start in range(0, len(body), step):
            await far.data(request, body[start : start + step])
        await far.ok(request, answer)

    found: list[Any] = []

    async def scene(client: RunnerClient) -> None:
        found.append(await client.manifest(N))

    return (lambda: against(script, scene)), found


def lines(*entries: Any) -> bytes:
    return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_manifest_may_be_cut_anywhere(step: int) -> None:
    play, found = manifest_scene(lines(FOLDER, LINK), {"partial": True, "missing": []}, step)
    play()
    assert [entry.path for entry in found[0].entries] == ["out", "out/l"]
    assert found[0].partial


@pytest.mark.parametrize(
    "body",
    [
        b"nonsense\n",
        b"[]\n",
        b"[" * 60_000 + b"\n",
        b"x" * 70_000,
        lines(FOLDER)[:-1],
        lines({**FOLDER, "path": "../out"}),
        lines({**FOLDER, "path": "/etc"}),
        lines({**FOLDER, "path": "a//b"}),
        lines({**FOLDER, "mode": -1}),
        lines({**FOLDER, "kind": "device"}),
        lines({"path": "f", "kind": "file", "mode": 0o644, "size": -1, "sha256": "a" * 64, "pack": "b" * 64}),
        lines({"path": "f", "kind": "file", "mode": 0o644, "size": 1, "sha256": "A" * 64, "pack": "../x"}),
        lines(FOLDER, FOLDER),
        lines({**LINK, "path": "out"}, {**LINK, "path": "out/below"}),
    ],
    ids=range(14),
)
def test_a_manifest_that_makes_no_sense_is_refused(body: bytes) -> None:
    play, _ = manifest_scene(body, {"partial": False}, 1 << 19)
    with pytest.raises(HostError, match="makes no sense"):
        play()


def test_a_manifest_without_partial_is_refused() -> None:
    play, _ = manifest_scene(lines(FOLDER), {}, 1 << 19)
    with pytest.raises(HostError, match="makes no sense"):
        play()
