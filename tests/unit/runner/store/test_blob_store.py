"""The host store, and inputs laid into a work tree. Runs on the Pythons of hosts, too."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from dstack.runner.store import artifacts, blob_store, intake
from dstack.wire import Refusal
from dstack.wire.host_messages import BlobsPushRequest
from dstack.wire.message_form import MisfitError

Entry = dict[str, Any]
"""One entry of a manifest."""


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def receive(root: Path, bodies: Sequence[bytes], chunks: Sequence[bytes] | None = None) -> None:
    blobs = [(digest(body), len(body)) for body in bodies]
    intake.receive(str(root), blobs, bodies if chunks is None else chunks)


def put(root: Path, body: bytes) -> str:
    receive(root, [body])
    return digest(body)


def file(path: str, body: bytes, mode: int = 0o644) -> Entry:
    return {"path": path, "kind": "file", "mode": mode, "size": len(body), "sha256": digest(body)}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def stage(tmp_path: Path, work: Path, *entries: Entry) -> None:
    blob_store.stage(str(tmp_path), str(work), list(entries))


def stored(tmp_path: Path) -> list[str]:
    return sorted(os.path.join(folder, name) for folder, _, names in os.walk(str(tmp_path / "store")) for name in names)


def test_what_was_received_is_not_missing(tmp_path: Path) -> None:
    have = put(tmp_path, b"abc")
    assert blob_store.missing(str(tmp_path), [digest(b"x"), have, digest(b"y")]) == [digest(b"x"), digest(b"y")]
    assert stored(tmp_path) == [str(tmp_path / "store" / have[:2] / have[2:])]
    assert stat.S_IMODE(os.stat(stored(tmp_path)[0]).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(str(tmp_path / "store")).st_mode) == 0o700


@pytest.mark.parametrize("chunks", [[b"ab"], [b"abd"], [b"abd", b"c"], []])
def test_bytes_that_are_not_the_blob_leave_nothing(tmp_path: Path, chunks: list[bytes]) -> None:
    with pytest.raises(Refusal) as caught:
        intake.receive(str(tmp_path), [(digest(b"abc"), 3)], chunks)
    assert caught.value.kind == "hash"
    assert stored(tmp_path) == []


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5, 100])
def test_many_blobs_come_in_one_stream_cut_anywhere(tmp_path: Path, cut: int) -> None:
    bodies = [b"abc", b"d", b"", b"efghij", b"klm"]
    whole = b"".join(bodies)
    receive(tmp_path, bodies, [whole[at : at + cut] for at in range(0, len(whole), cut)])
    assert blob_store.missing(str(tmp_path), [digest(body) for body in bodies]) == []
    assert len(stored(tmp_path)) == 5


@pytest.mark.parametrize("chunks", [[b"abcd"], [b"ab", b"cd"], [b"abc", b"d"]])
def test_more_bytes_than_the_blobs_have_are_refused(tmp_path: Path, chunks: list[bytes]) -> None:
    with pytest.raises(Refusal, match="more bytes") as caught:
        receive(tmp_path, [b"abc"], chunks)
    assert caught.value.kind == "hash"
    assert len(stored(tmp_path)) == 1


def test_of_many_blobs_those_before_a_damaged_one_are_kept(tmp_path: Path) -> None:
    bodies = [b"abc", b"def", b"ghi"]
    with pytest.raises(Refusal, match=digest(b"def")) as caught:
        receive(tmp_path, bodies, [b"abcdeXghi"])
    assert caught.value.kind == "hash"
    assert blob_store.missing(str(tmp_path), [digest(body) for body in bodies]) == [digest(b"def"), digest(b"ghi")]
    assert len(stored(tmp_path)) == 1


@pytest.mark.parametrize("blobs", [None, "a", {}, [["0" * 64]], [["0" * 64, -1]], [["0" * 64, True]], ["0" * 64]])
def test_what_is_no_list_of_blobs_is_refused(blobs: object) -> None:
    with pytest.raises(MisfitError) as caught:
        BlobsPushRequest.from_json({"blobs": blobs})
    assert caught.value.kind == "hash"


def test_a_sender_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"ab"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        intake.receive(str(tmp_path), [(digest(b"abc"), 3)], chunks())
    assert stored(tmp_path) == []


@pytest.mark.parametrize(
    "name", ["", "abc", "../" * 20 + "x" * 4, "A" * 64, "0" * 63, "0" * 65, "0" * 64 + "\n", None, 7]
)
def test_what_is_no_sha256_is_refused(tmp_path: Path, name: Any) -> None:
    for call in (
        lambda: blob_store.missing(str(tmp_path), [name]),
        lambda: intake.receive(str(tmp_path), [(name, 3)], [b"abc"]),
        lambda: blob_store.stage(
            str(tmp_path), str(tmp_path), [{"path": "a", "kind": "file", "mode": 420, "sha256": name}]
        ),
    ):
        with pytest.raises(Refusal) as caught:
            call()
        assert caught.value.kind == "hash"


def test_receivers_of_one_blob_at_once(tmp_path: Path) -> None:
    body = os.urandom(1 << 20)
    errors: list[Exception] = []

    def bring() -> None:
        try:
            receive(tmp_path, [body], [body[at : at + 4096] for at in range(0, 1 << 20, 4096)])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=bring) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(stored(tmp_path)) == 1


def test_inputs_are_laid_with_modes_links_and_folders(tmp_path: Path, work: Path) -> None:
    put(tmp_path, b"abc")
    stage(
        tmp_path,
        work,
        {"path": "out", "kind": "folder", "mode": 0o750},
        file("out/run", b"abc", 0o755),
        file("out/empty", b"", 0o444),
        {"path": "out/link", "kind": "link", "mode": 0o777, "target": "run"},
        {"path": "out/void", "kind": "folder", "mode": 0o111},
        file("elsewhere/deep/file", b"abc", 0o600),
    )
    modes = {
        name: stat.S_IMODE(os.lstat(str(work / name)).st_mode) for name in ("out", "out/run", "out/empty", "out/void")
    }
    assert modes == {"out": 0o750, "out/run": 0o755, "out/empty": 0o444, "out/void": 0o711}
    assert os.readlink(str(work / "out/link")) == "run"
    assert (work / "elsewhere/deep/file").read_bytes() == b"abc"
    assert sorted(os.listdir(str(work / "out"))) == ["empty", "link", "run", "void"]


def test_an_input_is_a_copy_of_its_own(tmp_path: Path, work: Path) -> None:
    have = put(tmp_path, b"abc")
    stage(tmp_path, work, file("f", b"abc"))
    (work / "f").write_bytes(b"job was here")
    assert (tmp_path / "store" / have[:2] / have[2:]).read_bytes() == b"abc"


def test_inputs_replace_files_and_links_of_the_snapshot(tmp_path: Path, work: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"kept")
    (work / "file").write_bytes(b"snapshot")
    (work / "link").symlink_to(outside / "kept")
    (work / "data").symlink_to(outside)
    (work / "model").write_bytes(b"snapshot")
    put(tmp_path, b"abc")
    names = ("file", "link", "data/kept", "model/weights")
    stage(tmp_path, work, *(file(name, b"abc") for name in names), {"path": "model", "kind": "folder", "mode": 0o755})
    assert [(work / name).read_bytes() for name in names] == [b"abc"] * 4
    assert (outside / "kept").read_bytes() == b"kept"
    assert os.listdir(str(outside)) == ["kept"]


def test_a_folder_in_the_way_is_named(tmp_path: Path, work: Path) -> None:
    (work / "out" / "model").mkdir(parents=True)
    put(tmp_path, b"abc")
    with pytest.raises(Refusal, match=r"out/model.*folder") as caught:
        stage(tmp_path, work, file("out/model", b"abc"))
    assert caught.value.kind == "inputs"
    assert os.listdir(str(work / "out")) == ["model"]


def test_a_blob_that_the_store_lacks(tmp_path: Path, work: Path) -> None:
    with pytest.raises(Refusal, match="lacks") as caught:
        stage(tmp_path, work, file("f", b"abc"))
    assert caught.value.kind == "hash"
    assert os.listdir(str(work)) == []


@pytest.mark.parametrize("body", [b"abd", b"ab", b"abcd", b""])
def test_a_damaged_blob_is_thrown_away_and_asked_for_again(tmp_path: Path, work: Path, body: bytes) -> None:
    have = put(tmp_path, b"abc")
    (tmp_path / "store" / have[:2] / have[2:]).write_bytes(body)
    with pytest.raises(Refusal, match="damaged") as caught:
        stage(tmp_path, work, file("f", b"abc"))
    assert caught.value.kind == "hash"
    assert os.listdir(str(work)) == []
    assert blob_store.missing(str(tmp_path), [have]) == [have]


def test_what_was_verified_before_is_laid_without_another_look(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified = blob_store.Verified()
    body = os.urandom(3 << 20)
    intake.receive(str(tmp_path), [(digest(body), len(body))], [body], verified)
    entry = file("f", body)
    monkeypatch.setattr(hashlib, "sha256", lambda *_: pytest.fail("it was read again"))
    blob_store.stage(str(tmp_path), str(work), [entry], verified)
    assert (work / "f").read_bytes() == body


@pytest.mark.parametrize("changed", [b"abd", b"ab", b"abcd", b""])
@pytest.mark.parametrize("known_by", ["receiving", "staging"])
def test_a_blob_that_somebody_touched_is_not_believed(
    tmp_path: Path, work: Path, changed: bytes, known_by: str
) -> None:
    verified = blob_store.Verified()
    if known_by == "receiving":
        intake.receive(str(tmp_path), [(digest(b"abc"), 3)], [b"abc"], verified)
    else:
        put(tmp_path, b"abc")
        blob_store.stage(str(tmp_path), str(work), [file("g", b"abc")], verified)
    path = blob_store.blob_path(str(tmp_path), digest(b"abc"))
    before = os.stat(path).st_ctime_ns
    while os.stat(path).st_ctime_ns == before:  # clocks of file systems tick each few milliseconds
        with open(path, "wb") as blob:
            blob.write(changed)
    with pytest.raises(Refusal, match="damaged"):
        blob_store.stage(str(tmp_path), str(work), [file("f", b"abc")], verified)
    assert not (work / "f").exists()


@pytest.mark.parametrize("copied", [0, 2, None])
def test_where_the_kernel_cannot_copy_it_is_done_by_hand(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch, copied: int | None
) -> None:
    verified = blob_store.Verified()
    intake.receive(str(tmp_path), [(digest(b"abc"), 3)], [b"abc"], verified)

    def some(source: int, target: int, count: int, at: int, to: int) -> int:
        if copied is None or at:
            raise OSError(errno.EXDEV, "cannot")
        return os.pwrite(target, os.pread(source, copied, at), to)

    monkeypatch.setattr(os, "copy_file_range", some)
    blob_store.stage(str(tmp_path), str(work), [file("f", b"abc")], verified)
    assert (work / "f").read_bytes() == b"abc"


def test_a_list_of_entries_in_the_store_stands_for_them(tmp_path: Path, work: Path) -> None:
    put(tmp_path, b"abc")
    body = "".join(json.dumps(file("d/%d" % index, b"abc")) + "\n" for index in range(50)).encode()
    put(tmp_path, body)
    stage(tmp_path, work, {"kind": "entries", "sha256": digest(body), "size": len(body)})
    assert len(os.listdir(str(work / "d"))) == 50


@pytest.mark.parametrize("body", [b"not json\n", b'["x"]\n', b'{"path":"../x","kind":"folder","mode":493}\n'])
def test_a_list_of_entries_that_is_none(tmp_path: Path, work: Path, body: bytes) -> None:
    put(tmp_path, body)
    with pytest.raises(Refusal) as caught:
        stage(tmp_path, work, {"kind": "entries", "sha256": digest(body), "size": len(body)})
    assert caught.value.kind == "inputs"


@pytest.mark.parametrize(
    "change",
    [
        {"mode": 0o4755},
        {"mode": -1},
        {"mode": "755"},
        {"mode": True},
        {"size": -1},
        {"size": None},
        {"kind": "device"},
        {"kind": None},
        {"kind": "link"},
        {"kind": "link", "target": "/etc/passwd"},
        {"kind": "link", "target": "a/.."},
        {"path": None},
        {"path": 7},
    ],
)
def test_entries_that_make_no_sense(tmp_path: Path, work: Path, change: Entry) -> None:
    put(tmp_path, b"abc")
    with pytest.raises(Refusal) as caught:
        stage(tmp_path, work, dict(file("f", b"abc"), **change))
    assert caught.value.kind == "inputs"
    assert os.listdir(str(work)) == []


@pytest.mark.parametrize("above", [{"kind": "link", "target": "b"}, file("x", b"abc")])
def test_nothing_is_laid_below_a_file_or_link(tmp_path: Path, work: Path, above: Entry) -> None:
    put(tmp_path, b"abc")
    with pytest.raises(Refusal, match="below"):
        stage(tmp_path, work, file("a/x", b"abc"), dict(above, path="a", mode=0o777))
    with pytest.raises(Refusal, match="twice"):
        stage(tmp_path, work, file("a", b"abc"), dict(above, path="a", mode=0o777))
    assert os.listdir(str(work)) == []


def test_a_link_swapped_in_while_inputs_are_laid_leads_nobody_out(tmp_path: Path, work: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    put(tmp_path, b"abc")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            try:
                os.rename(str(work / "d"), str(work / ("gone%d" % time.monotonic_ns())))
                os.symlink(str(outside), str(work / "d"))
            except OSError:
                continue

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for index in range(400):
            try:
                stage(tmp_path, work, file("d/%d" % index, b"abc"))
            except Refusal:
                continue
    finally:
        stop.set()
        thread.join()
    assert os.listdir(str(outside)) == []


def job(tmp_path: Path) -> Path:
    spool = tmp_path / "spool"
    out = spool / "work" / "out"
    out.mkdir(parents=True)
    (spool / "exit.json").write_text('{"code": 0}')
    for index in range(5):
        (out / str(index)).write_bytes(b"%d" % index * 1000)
    (out / "empty").write_bytes(b"")
    artifacts.write_manifest(str(tmp_path), str(spool), str(spool / "work"), ["out"])
    return spool


def test_artifacts_of_an_ended_job_are_adopted_and_need_no_transfer(tmp_path: Path, work: Path) -> None:
    spool = job(tmp_path)
    assert intake.adopt(str(tmp_path), str(spool), str(spool / "work")) == {"files": 5, "bytes": 5000}
    assert intake.adopt(str(tmp_path), str(spool), str(spool / "work")) == {"files": 0, "bytes": 0}
    entries = list(artifacts.entries(str(spool)))
    assert blob_store.missing(str(tmp_path), [entry["sha256"] for entry in entries if entry.get("size")]) == []
    stage(tmp_path, work, *entries)
    assert (work / "out" / "3").read_bytes() == b"3" * 1000


def test_files_that_changed_are_not_adopted(tmp_path: Path) -> None:
    spool = job(tmp_path)
    (spool / "work" / "out" / "2").write_bytes(b"x" * 1000)
    (spool / "work" / "out" / "3").unlink()
    os.mkfifo(str(spool / "work" / "out" / "3"))
    assert intake.adopt(str(tmp_path), str(spool), str(spool / "work"))["files"] == 3
    assert len(stored(tmp_path)) == 3


def test_artifacts_are_moved_into_the_store_and_nobody_else_has_them(tmp_path: Path) -> None:
    spool = job(tmp_path)
    out = spool / "work" / "out"
    (out / "1").chmod(0o444)
    numbers = {os.stat(str(out / name)).st_ino for name in "01234"}
    intake.adopt(str(tmp_path), str(spool), str(spool / "work"))
    assert {os.stat(path).st_ino for path in stored(tmp_path)} == numbers
    assert {stat.S_IMODE(os.stat(path).st_mode) for path in stored(tmp_path)} == {0o600}
    assert sorted(os.listdir(str(out))) == ["empty"]


def test_an_artifact_that_has_another_name_is_copied(tmp_path: Path) -> None:
    spool = job(tmp_path)
    mine = tmp_path / "mine"
    os.link(str(spool / "work" / "out" / "1"), str(mine))
    assert intake.adopt(str(tmp_path), str(spool), str(spool / "work"))["files"] == 5
    mine.write_bytes(b"changed")
    for path in stored(tmp_path):
        with open(path, "rb") as blob:
            assert digest(blob.read()) == os.path.basename(os.path.dirname(path)) + os.path.basename(path)


def test_artifacts_that_cannot_be_moved_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = job(tmp_path)
    rename = os.rename

    def refuse(*names: str, **folders: int) -> None:
        if folders:
            raise OSError(errno.EXDEV, "another disk, or a read-only folder")
        rename(*names)

    monkeypatch.setattr(os, "rename", refuse)
    assert intake.adopt(str(tmp_path), str(spool), str(spool / "work"))["files"] == 5
    assert len(stored(tmp_path)) == 5
    assert sorted(os.listdir(str(spool / "work" / "out"))) == ["0", "1", "2", "3", "4", "empty"]


def test_temporary_files_of_dead_receivers_are_swept_after_two_days(tmp_path: Path) -> None:
    put(tmp_path, b"abc")
    old, new = tmp_path / "store" / ".tmp-1-1-a", tmp_path / "store" / ".tmp-1-1-b"
    for path in (old, new):
        path.write_bytes(b"half")
    now = os.stat(str(new)).st_mtime + 100
    os.utime(str(old), (now - 3 * 86_400, now - 3 * 86_400))
    assert blob_store.remove_stale_files(str(tmp_path), now=now) == 1
    assert [os.path.basename(path) for path in stored(tmp_path)] == [".tmp-1-1-b", digest(b"abc")[2:]]
