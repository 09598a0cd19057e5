"""One job from hold to exit, whoever dies on the way."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.runners.client import Refused, until
from tests.support.runners.host import Host


def supervisor_pid(host: Host, nonce: str) -> int:
    return int(json.loads((host.folder(nonce) / "supervisor.json").read_text())["pid"])


def test_job_runs_in_its_project_folder_with_what_it_was_given(host: Host) -> None:
    log, end = host.run(
        host.connect(),
        'cat inner.txt; printf "%s|" "$@" "$plain" "$secret"; umask; cat; printf %s "$secret" | sha256sum',
        prefix="sub/",
        arguments=["--lr", "0.1; $(touch x)", ""],
        environment={"plain": "a'b\"\n$HOME"},
        secrets={"secret": "hush é"},
    )
    given = hashlib.sha256("hush é".encode()).hexdigest()
    assert log.decode() == f"inner\n--lr|0.1; $(touch x)||a'b\"\n$HOME|***|0022\n{given}  -\n"
    assert (end["code"], end["reason"], end["stopped"], end["missing"]) == (0, "", False, [])


def test_secrets_stand_nowhere_on_the_disk(host: Host) -> None:
    host.run(host.connect(), "test ${#TOKEN} = 9", secrets={"TOKEN": "hush-1234"})
    for path in host.root.rglob("*"):
        assert not path.is_file() or b"hush-1234" not in path.read_bytes(), path


def test_environment_of_the_connection_stays_out(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/somewhere")
    monkeypatch.setenv("SOMETHING_ELSE", "x")
    log, _ = host.run(host.connect(), "env")
    names = {line.split(b"=")[0] for line in log.splitlines()}
    assert b"PATH" in names
    assert not names & {b"SSH_AUTH_SOCK", b"SOMETHING_ELSE", b"DSTACK_SLOTS_DIR"}


@pytest.mark.parametrize("way", ["environment", "secrets"])
def test_no_coordinator_says_which_boot_of_a_host_this_is(host: Host, way: str) -> None:
    runner = host.connect()
    real, forged = runner.call("hello")["boot_id"], "0b007000-0000-4000-8000-000000000001"
    given: dict[str, Any] = {way: {"DSTACK_BOOT_ID": forged}}
    nonce = host.start(runner, "echo $DSTACK_BOOT_ID", **given)
    until(lambda: runner.call("status", nonce=nonce)["exit"], "it ends")
    assert json.loads((host.folder(nonce) / "supervisor.json").read_text())["boot_id"] == real
    assert runner.call("hello")["boot_id"] == real
    assert runner.call("status", nonce=nonce)["state"] == "ended"


def test_first_failing_command_ends_the_job(host: Host) -> None:
    log, end = host.run(host.connect(), "echo one\nfalse\necho two")
    assert log == b"one\n"
    assert (end["code"], end["reason"]) == (1, "exit code 1")


def test_signal_that_ends_the_job_is_named(host: Host) -> None:
    _, end = host.run(host.connect(), "kill -SEGV $$")
    assert (end["code"], end["signal"]) == (None, signal.SIGSEGV)
    assert "SIGSEGV" in end["reason"]


def test_missing_artifact_is_named_and_is_no_success(host: Host) -> None:
    log, end = host.run(host.connect(), "touch there", artifacts=["there", "model"])
    assert end["missing"] == ["model"]
    assert "model" in end["reason"]
    assert b"model" in log


def test_longest_duration_ends_the_job_with_the_reason(host: Host) -> None:
    log, end = host.run(host.connect(), "sleep 100", max_duration=1)
    assert "max-duration" in end["reason"]
    assert b"max-duration" in log
    assert not end["stopped"]


def test_what_cannot_be_prepared_says_so_in_the_log(host: Host) -> None:
    client = host.connect()
    nonce = host.nonce()
    client.call("hold", nonce=nonce, slots=1)
    entry = {"path": "data", "kind": "file", "mode": 0o644, "size": 1, "sha256": "0" * 64, "target": ""}
    with pytest.raises(Refused, match="prepare"):
        host.prepare(client, nonce, "true", inputs=[entry])
    client.call("drop", nonce=nonce)
    log, end = host.finish(client, nonce)
    assert b"could not be prepared" in log
    assert end is None


@pytest.mark.parametrize("prefix", ["../", "/etc/", "a/../../b/"])
def test_project_folder_outside_the_work_tree_is_refused(host: Host, prefix: str) -> None:
    client = host.connect()
    nonce = host.nonce()
    client.call("hold", nonce=nonce, slots=1)
    with pytest.raises(Refused, match="leaves"):
        host.prepare(client, nonce, "true", prefix=prefix)


@pytest.mark.parametrize("nonce", ["../../../../etc", "a" * 15, "A" * 16, "a" * 65, "a" * 15 + "\n", None, 7])
def test_nonce_is_checked_before_it_becomes_a_path(host: Host, nonce: Any) -> None:
    with pytest.raises(Refused, match="nonce"):
        host.connect().call("verdict", nonce=nonce)


def test_job_survives_its_runner_and_a_later_one_gives_the_rest(host: Host) -> None:
    first = host.connect()
    nonce = host.start(first, "echo before; while [ ! -e go ]; do sleep 0.02; done; echo after; exit 5")
    host.await_log(first, nonce, b"before")
    first.kill()
    second = host.connect()
    assert host.state(second, nonce) == "running"
    stream = second.ask("follow", nonce=nonce, offset=len(b"before\n"))
    (host.folder(nonce) / "work" / "go").touch()
    assert b"".join(stream.data()) == b"after\n"
    assert stream.answer["ok"]["exit"]["code"] == 5
    assert second.call("verdict", nonce=nonce) == {"verdict": "started"}
    assert second.call("spool") == {"attempts": [{"nonce": nonce, "state": "ended", "attempt": "where/it/is/"}]}


@pytest.mark.parametrize("end", ["close", "kill"])
def test_held_supervisor_refuses_when_its_connection_ends(host: Host, end: str) -> None:
    first, second = host.connect(), host.connect()
    nonce = host.nonce()
    first.call("hold", nonce=nonce, slots=1)
    host.prepare(first, nonce, "touch ran")
    assert host.state(second, nonce) == "held"
    getattr(first, end)()
    until(lambda: host.state(second, nonce) == "unknown", "the supervisor ended")
    assert second.call("verdict", nonce=nonce) == {"verdict": "refused"}
    until(lambda: not host.processes(), "the supervisor ended")
    assert not (host.folder(nonce) / "work" / "ran").exists()


def test_dropped_attempt_never_starts_and_frees_its_slot(host: Host) -> None:
    client = host.connect()
    nonce = host.nonce()
    client.call("hold", nonce=nonce, slots=1)
    client.call("drop", nonce=nonce)
    with pytest.raises(Refused):
        client.call("hold", nonce=nonce, slots=1)
    assert client.call("hold", nonce=host.nonce(), slots=1) == {"gpus": []}


def test_go_and_refusal_agree_on_one_verdict(host: Host) -> None:
    """Of `go` here and `verdict` there at the same moment, the one that comes first counts for both."""
    one, other = host.connect(), host.connect()
    seen = set()
    for _ in range(40):
        nonce = host.nonce()
        one.call("hold", nonce=nonce, slots=1)
        host.prepare(one, nonce, "touch ran")
        barrier = threading.Barrier(2)

        def go(nonce: str = nonce, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            return bool(one.call("go", nonce=nonce, environment={})["started"])

        def refuse(nonce: str = nonce, barrier: threading.Barrier = barrier) -> str:
            barrier.wait()
            return str(other.call("verdict", nonce=nonce)["verdict"])

        with ThreadPoolExecutor(2) as pool:
            started, verdict = pool.submit(go), pool.submit(refuse)
        host.finish(other, nonce)
        ran = (host.folder(nonce) / "work" / "ran").exists()
        assert started.result() == ran == (verdict.result() == "started")
        seen.add(ran)
    assert seen


def test_go_without_prepare_starts_nothing(host: Host) -> None:
    client = host.connect()
    nonce = host.nonce()
    client.call("hold", nonce=nonce, slots=1)
    with pytest.raises(Refused, match="not prepared"):
        client.call("go", nonce=nonce, environment={})
    assert client.call("verdict", nonce=nonce) == {"verdict": "refused"}


def test_killed_supervisor_and_job_are_vanished_never_ended(host: Host) -> None:
    client = host.connect()
    nonce = host.start(client, "echo up; sleep 100")
    host.await_log(client, nonce, b"up")
    stream = client.ask("follow", nonce=nonce, offset=0)
    for pid in [supervisor_pid(host, nonce), *host.processes()]:
        os.kill(pid, signal.SIGKILL)
    assert stream.result()["exit"] is None
    assert client.call("status", nonce=nonce)["state"] == "vanished"
    end = client.call("wait", nonce=nonce)["exit"]
    assert end["code"] is None
    assert "not known" in end["reason"]


def test_what_a_script_leaves_running_ends_with_it(host: Host) -> None:
    client = host.connect()
    log, end = host.run(client, "setsid sleep 1000 & echo done")
    assert end["code"] == 0
    assert b"left behind" in log
    until(lambda: not host.processes(), "everything ended")


def test_release_forgets_an_ended_attempt_and_no_other(host: Host) -> None:
    client = host.connect()
    running = host.start(client, "sleep 100", slots=2)
    nonce = host.start(client, "mkdir -p deep/er; chmod 500 deep/er deep", slots=2)
    host.finish(client, nonce)
    client.call("release", nonce=nonce)
    assert not host.folder(nonce).exists()
    with pytest.raises(Refused, match="busy"):
        client.call("release", nonce=running)


def test_manifest_and_pack_bring_the_artifacts(host: Host) -> None:
    client = host.connect()
    nonce = host.start(client, "mkdir out; printf 12345 > out/a", artifacts=["out"])
    host.finish(client, nonce)
    stream = client.ask("manifest", nonce=nonce)
    entries = [json.loads(line) for line in b"".join(stream.data()).splitlines()]
    assert (stream.answer["ok"]["partial"], stream.answer["ok"]["missing"]) == (False, [])
    file = next(entry for entry in entries if entry["path"] == "out/a")
    pack = b"".join(client.ask("pack.read", nonce=nonce, pack=file["pack"]).data())
    assert pack[file["offset"] : file["offset"] + file["size"]] == b"12345"


def test_wait_gives_the_exit(host: Host) -> None:
    client = host.connect()
    nonce = host.start(client, "while [ ! -e go ]; do sleep 0.02; done; exit 9")
    stream = client.ask("wait", nonce=nonce)
    (host.folder(nonce) / "work" / "go").touch()
    assert stream.result()["exit"]["code"] == 9


def test_hold_that_waits_is_cancelled_by_drop(host: Host) -> None:
    client = host.connect()
    host.start(client, "sleep 100")
    nonce = host.nonce()
    waiting = client.ask("hold", nonce=nonce, slots=1)
    until(lambda: host.state(client, nonce) == "held", "a supervisor waits for a slot")
    client.call("drop", nonce=nonce)
    with pytest.raises(Refused, match="cancelled"):
        waiting.result()
    assert client.call("verdict", nonce=nonce) == {"verdict": "refused"}


def test_cancelled_request_is_answered_at_once_and_only_once(host: Host) -> None:
    client = host.connect()
    nonce = host.start(client, "echo up; sleep 100")
    stream = client.ask("follow", nonce=nonce, offset=0)
    host.await_log(client, nonce, b"up")
    client.call("cancel", request=stream.number)
    with pytest.raises(Refused, match="cancelled"):
        stream.result()
    client.call("stop", nonce=nonce, grace=0, abort=False)
    assert stream.frames.empty()


def test_unknown_operation_is_an_answer(host: Host) -> None:
    with pytest.raises(Refused, match="knows no operation"):
        host.connect().call("fly")
