"""The manifest and the packs of an ended job. Runs on the Pythons of hosts, too: nothing but pytest and the runner."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from dstack.runner.base import safe_paths
from dstack.runner.store import artifacts
from dstack.wire import Refusal


class Job:
    """An ended job's folders; `out` is the folder that tests fill."""

    def __init__(self, top: Path) -> None:
        self.root = str(top)
        self.spool = top / "spool"
        self.work = top / "spool" / "work"
        self.out = self.work / "out"
        self.out.mkdir(parents=True)
        self.ended(code=0)

    def ended(self, **report: object) -> None:
        (self.spool / "exit.json").write_text(json.dumps(report))

    def manifest(self, *paths: str) -> dict[str, Any]:
        return artifacts.write_manifest(self.root, str(self.spool), str(self.work), paths or ("out",)).to_json()

    def entries(self) -> dict[str, dict[str, Any]]:
        return {entry["path"]: entry for entry in artifacts.entries(str(self.spool))}

    def pack(self, name: str) -> bytes:
        return b"".join(artifacts.read_pack(self.root, str(self.spool), str(self.work), name))


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def write(path: Path, body: bytes, mode: int = 0o644) -> None:
    path.write_bytes(body)
    path.chmod(mode)


def test_entries_say_kind_mode_size_hash_and_target(job: Job) -> None:
    write(job.out / "file", b"abc", 0o640)
    write(job.out / "empty", b"", 0o755)
    (job.out / "folder").mkdir(mode=0o750)
    (job.out / "link").symlink_to("folder/../file".replace("folder/../", ""))
    summary = job.manifest()
    found = job.entries()
    assert (summary["entries"], summary["bytes"], summary["missing"], summary["partial"]) == (5, 3, [], False)
    assert found["out/file"]["mode"] == 0o640
    assert found["out/file"]["sha256"] == hashlib.sha256(b"abc").hexdigest()
    assert (found["out/empty"]["size"], found["out/empty"]["pack"]) == (0, "")
    assert (found["out/folder"]["kind"], found["out/folder"]["mode"]) == ("folder", 0o750)
    assert (found["out/link"]["kind"], found["out/link"]["target"]) == ("link", "file")


def test_the_order_is_that_of_the_bytes_and_parents_come_first(job: Job) -> None:
    for name in ("b", "a.txt", "a"):
        (job.out / name).mkdir()
        write(job.out / name / "f", b"x")
    write(job.out / "\u00e9", b"x")
    job.manifest()
    paths = [os.fsencode(path) for path in job.entries()]
    assert paths == sorted(paths)


def test_setuid_bits_are_dropped(job: Job) -> None:
    write(job.out / "file", b"abc", 0o4755)
    job.manifest()
    assert job.entries()["out/file"]["mode"] == 0o755


def test_two_hosts_with_the_same_files_write_the_same_bytes(tmp_path: Path) -> None:
    bodies = []
    for name in "ab":
        one = Job(tmp_path / name)
        for index in sorted(range(300), key=lambda index: hashlib.md5(b"%d" % index + name.encode()).digest()):
            write(one.out / str(index), b"%d" % index * 50)
        one.manifest()
        bodies.append((one.spool / "manifest.jsonl").read_bytes())
    assert bodies[0] == bodies[1]


def test_a_manifest_that_stands_is_kept(job: Job) -> None:
    write(job.out / "file", b"abc")
    first = job.manifest()
    (job.out / "file").write_bytes(b"changed")
    assert job.manifest() == first
    assert job.entries()["out/file"]["size"] == 3


def test_collectors_at_once_agree(job: Job) -> None:
    for index in range(200):
        write(job.out / str(index), b"%d" % index)
    answers: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: answers.append(job.manifest())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert all(answer == answers[0] for answer in answers)
    assert sorted(os.listdir(job.spool)) == ["exit.json", "manifest.json", "manifest.jsonl", "work"]


def test_small_files_share_packs_and_large_ones_do_not(job: Job) -> None:
    for index in range(40):
        write(job.out / ("s%02d" % index), b"%d" % index * (500 * 1024))
    write(job.out / "large", os.urandom(artifacts.MAX_SHARED_FILE_BYTES))
    job.manifest()
    packs: dict[str, list[dict[str, Any]]] = {}
    for entry in job.entries().values():
        if entry["kind"] == "file":
            packs.setdefault(entry["pack"], []).append(entry)
    sizes = sorted(sum(entry["size"] for entry in members) for members in packs.values())
    assert len(packs) == 4
    assert max(sizes) <= artifacts.MAX_SHARED_PACK_BYTES
    assert [len(members) for members in packs.values() if members[0]["path"] == "out/large"] == [1]
    for name, members in packs.items():
        body = job.pack(name)
        for entry in members:
            piece = body[entry["offset"] : entry["offset"] + entry["size"]]
            assert hashlib.sha256(piece).hexdigest() == entry["sha256"]
        assert len(body) == sum(entry["size"] for entry in members)


def test_equal_content_has_one_place(job: Job) -> None:
    for name in "abc":
        write(job.out / name, b"same")
    job.manifest()
    places = {(entry["pack"], entry["offset"]) for entry in job.entries().values() if entry["kind"] == "file"}
    assert len(places) == 1
    assert job.pack(places.pop()[0]) == b"same"


def test_pieces_are_at_most_256_kib(job: Job) -> None:
    write(job.out / "file", os.urandom(3 << 20))
    job.manifest()
    pieces = list(artifacts.read_pack(job.root, str(job.spool), str(job.work), job.entries()["out/file"]["pack"]))
    assert max(map(len, pieces)) == 256 * 1024


def test_names_that_are_no_utf8_survive(job: Job) -> None:
    name = b"\xff\xfe name"
    with open(os.path.join(os.fsencode(job.out), name), "wb") as file:
        file.write(b"odd")
    job.manifest()
    (path,) = [path for path, entry in job.entries().items() if entry["kind"] == "file"]
    assert path.encode("utf-8", "surrogateescape") == b"out/" + name
    assert job.pack(job.entries()[path]["pack"]) == b"odd"


def test_missing_paths_are_named_as_written(job: Job) -> None:
    write(job.out / "file", b"abc")
    (job.work / "loop").symlink_to("loop")
    (job.work / "door").symlink_to("out")
    paths = ["out", "./out/file", "absent", "out/file/below", "door", "door/file", "loop", "loop/x", "out/"]
    absent = ["absent", "out/file/below", "door/file", "loop/x"]
    assert artifacts.missing(str(job.work), paths) == absent
    summary = job.manifest(*paths)
    assert (summary["missing"], summary["partial"]) == (absent, True)


@pytest.mark.parametrize(
    "path", ["/etc", "..", "out/../..", "a/../b", "", "out/.git", ".dstack/x", "a\0b", "x" * 256, 7]
)
def test_named_paths_that_leave_are_refused(job: Job, path: Any) -> None:
    with pytest.raises(Refusal) as caught:
        artifacts.missing(str(job.work), [path])
    assert caught.value.kind == "artifact"


def test_the_whole_project_folder_without_what_is_gits(job: Job) -> None:
    (job.work / ".git").mkdir()
    write(job.work / ".git" / "config", b"x")
    (job.out / "clone" / ".GIT").mkdir(parents=True)
    write(job.out / "kept", b"x")
    summary = job.manifest(".")
    assert set(job.entries()) == {"out", "out/kept", "out/clone"}
    assert summary["skipped"] == [".git", "out/clone/.GIT"]


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../../secret", "../..", "folder/../../..", "folder/..", "../.git/config"]
)
def test_links_that_may_lead_out_are_refused(job: Job, target: str) -> None:
    (job.out / "link").symlink_to(target)
    with pytest.raises(Refusal, match=r"out/link.*symbolic link"):
        job.manifest()
    assert not (job.spool / "manifest.jsonl").exists()


def test_a_failed_job_keeps_what_can_be_kept(job: Job) -> None:
    write(job.out / "file", b"abc")
    (job.out / "link").symlink_to("/etc/passwd")
    job.ended(code=1)
    summary = job.manifest()
    assert (summary["partial"], summary["skipped"]) == (True, ["out/link"])
    assert set(job.entries()) == {"out", "out/file"}


@pytest.mark.parametrize(
    "report",
    [{"code": 3}, {"code": None, "signal": 9}, {"code": 0, "stopped": True}, {"code": 0, "reason": "max-duration"}],
)
def test_artifacts_of_a_job_without_success_are_partial(job: Job, report: dict[str, object]) -> None:
    job.ended(**report)
    assert job.manifest()["partial"] is True


def test_what_a_link_leads_to_is_never_read(job: Job, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    write(secret / "key", b"secret")
    (job.work / "named").symlink_to(secret)
    job.ended(code=1)
    job.manifest("named", "named/key")
    assert job.entries() == {}


def test_sockets_and_pipes_are_left_out_and_named(job: Job) -> None:
    os.mkfifo(str(job.out / "pipe"))
    here = os.getcwd()
    os.chdir(str(job.out))
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket")
    finally:
        os.chdir(here)
    write(job.out / "file", b"abc")
    summary = job.manifest()
    assert set(job.entries()) == {"out", "out/file"}
    assert summary["skipped"] == ["out/pipe", "out/socket"]


@pytest.mark.parametrize("change", ["bytes", "longer", "shorter", "gone", "link"])
def test_a_file_that_is_not_what_the_manifest_says_is_refused(job: Job, change: str) -> None:
    write(job.out / "a", b"first")
    write(job.out / "b", b"abc")
    job.manifest()
    pack = job.entries()["out/b"]["pack"]
    if change in ("gone", "link"):
        (job.out / "b").unlink()
    if change == "link":
        write(job.work / "copy", b"abc")
        (job.out / "b").symlink_to(job.work / "copy")
    elif change != "gone":
        (job.out / "b").write_bytes({"bytes": b"abd", "longer": b"abcd", "shorter": b"ab"}[change])
    with pytest.raises(Refusal, match="out/b") as caught:
        job.pack(pack)
    assert caught.value.kind == "changed"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("pipe", "changed into a named pipe while it was stored"),
        ("socket", "changed into a socket while it was stored"),
        ("folder", "changed into a folder while it was stored"),
        ("link", "changed into a symbolic link while it was stored"),
    ],
)
def test_what_a_file_changed_into_is_said(job: Job, change: str, words: str) -> None:
    write(job.out / "b", b"abc")
    job.manifest()
    pack = job.entries()["out/b"]["pack"]
    (job.out / "b").unlink()
    here = os.getcwd()
    os.chdir(str(job.out))  # the path of a socket is short
    try:
        if change == "pipe":
            os.mkfifo("b")
        elif change == "folder":
            os.mkdir("b")
        elif change == "link":
            os.symlink("elsewhere", "b")
        else:
            with socket.socket(socket.AF_UNIX) as server:
                server.bind("b")
    finally:
        os.chdir(here)
    with pytest.raises(Refusal, match="out/b") as caught:
        job.pack(pack)
    assert caught.value.kind == "changed"
    assert words in str(caught.value)


def test_a_folder_swapped_for_a_link_is_not_followed(job: Job, tmp_path: Path) -> None:
    (job.out / "sub").mkdir()
    write(job.out / "sub" / "file", b"abc")
    job.manifest()
    outside = tmp_path / "outside"
    os.rename(str(job.out / "sub"), str(outside))
    (job.out / "sub").symlink_to(outside)
    with pytest.raises(Refusal) as caught:
        job.pack(job.entries()["out/sub/file"]["pack"])
    assert caught.value.kind == "changed"


@pytest.mark.parametrize("pack", ["", "nothing", "../../etc", "0" * 64])
def test_packs_that_the_manifest_does_not_name(job: Job, pack: str) -> None:
    write(job.out / "a", b"first")
    job.manifest()
    with pytest.raises(Refusal) as caught:
        job.pack(pack)
    assert caught.value.kind == "manifest"


def test_too_many_entries_are_refused_with_the_way_out(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "MAX_ENTRIES", 10)
    for index in range(10):
        write(job.out / str(index), b"x")
    with pytest.raises(Refusal, match="more than 10") as caught:
        job.manifest()
    assert "archive" in caught.value.hint


def test_a_deep_tree_is_refused_and_leaks_no_descriptor(job: Job) -> None:
    folder = job.out
    for _ in range(safe_paths.MAX_DEPTH):
        folder = folder / "d"
    folder.mkdir(parents=True)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with pytest.raises(Refusal, match="too deep"):
        job.manifest()
    assert (len(os.listdir("/proc/self/fd")) if before else 0) == before
