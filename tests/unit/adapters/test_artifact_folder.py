"""The folder that artifacts are pulled into: what is written, and that nothing is written anywhere else."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dstack.adapters.artifact_folder import SafeFolder
from dstack.errors import BucketError, DstackError
from dstack.model import Entry, EntryKind
from tests.support.code.trees import described
from tests.support.faults.hostile_paths import LINKS, PATHS, TAKEN

BODY = b"abc"


def file(path: str, body: bytes = BODY, mode: int = 0o644) -> Entry:
    return Entry(path=path, kind=EntryKind.FILE, mode=mode, size=len(body), sha256=hashlib.sha256(body).hexdigest())


def link(path: str, target: str) -> Entry:
    return Entry(path=path, kind=EntryKind.LINK, mode=0o777, target=target)


def folder(path: str, mode: int = 0o755) -> Entry:
    return Entry(path=path, kind=EntryKind.FOLDER, mode=mode)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[SafeFolder]:
    with SafeFolder(tmp_path / "outer" / "target") as opened:
        yield opened


def test_files_links_and_folders_with_their_modes(tree: SafeFolder) -> None:
    tree.write(folder("out", 0o750), ())
    tree.write(file("out/run", mode=0o755), [b"a", b"", b"bc"])
    tree.write(file("out/closed", mode=0o400), [BODY])
    tree.write(link("out/link", "run"), ())
    tree.write(folder("out/never", 0o000), ())
    found = {path.decode(): entry[:2] for path, entry in described(Path(tree.path)).items()}
    assert found == {
        "out": ("folder", 0o750),
        "out/run": ("file", 0o755),
        "out/closed": ("file", 0o400),
        "out/link": ("link", 0),
        "out/never": ("folder", 0o700),
    }


def test_nothing_is_made_before_the_first_write(tree: SafeFolder) -> None:
    assert not tree.holds(file("a"))
    assert not Path(tree.path).exists()


@pytest.mark.parametrize("path", PATHS, ids=range(len(PATHS)))
def test_hostile_paths_write_nothing(tree: SafeFolder, tmp_path: Path, path: str) -> None:
    for entry in (file(path), folder(path), link(path, "a")):
        with pytest.raises(DstackError):
            tree.write(entry, [BODY])
        with pytest.raises(DstackError):
            tree.holds(entry)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("path", "target"), LINKS, ids=range(len(LINKS)))
def test_hostile_links_write_nothing(tree: SafeFolder, tmp_path: Path, path: str, target: str) -> None:
    with pytest.raises(DstackError):
        tree.write(link(path, target), ())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", TAKEN, ids=range(len(TAKEN)))
def test_odd_names_are_written_as_they_are(tree: SafeFolder, path: str) -> None:
    tree.write(file(path), [BODY])
    assert tree.holds(file(path))
    assert path.encode("utf-8", "surrogateescape") in described(Path(tree.path))


@pytest.mark.parametrize("chunks", [[b"ab"], [b"abd"], [b"abcd"], [b"abc", b"d"], []])
def test_wrong_bytes_leave_what_was_there(tree: SafeFolder, chunks: list[bytes]) -> None:
    tree.write(file("out/f", b"old"), [b"old"])
    before = described(Path(tree.path))
    with pytest.raises(DstackError, match="out/f"):
        tree.write(file("out/f"), chunks)
    assert described(Path(tree.path)) == before


def test_a_source_that_fails_leaves_what_was_there(tree: SafeFolder) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"ab"
        raise BucketError("gone")

    with pytest.raises(BucketError):
        tree.write(file("f"), chunks())
    assert described(Path(tree.path)) == {}


def test_links_of_the_user_are_not_gone_through(tree: SafeFolder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    Path(tree.path).mkdir(parents=True)
    (Path(tree.path) / "data").symlink_to(outside)
    for entry in (file("data/f"), folder("data/d"), link("data/l", "x"), folder("data")):
        with pytest.raises(DstackError, match="data") as caught:
            tree.write(entry, [BODY])
        assert "-o" in (caught.value.hint or "")
    assert list(outside.iterdir()) == []


def test_a_link_at_the_place_of_a_file_is_replaced_not_written_through(tree: SafeFolder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"kept")
    Path(tree.path).mkdir(parents=True)
    (Path(tree.path) / "f").symlink_to(outside)
    assert not tree.holds(file("f", b"kept"))
    tree.write(file("f"), [BODY])
    assert outside.read_bytes() == b"kept"
    assert (Path(tree.path) / "f").read_bytes() == BODY


def test_a_folder_swapped_for_a_link_in_the_middle_leads_nobody_out(tree: SafeFolder, tmp_path: Path) -> None:
    """Another process swaps the folder for a link, back and forth, while files are written below it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    top = Path(tree.path)
    stop = threading.Event()
    deadline = time.monotonic() + 60
    swaps = 0

    def swap() -> None:
        nonlocal swaps
        while not stop.is_set():
            try:
                os.rename(top / "d", top / f"gone{time.monotonic_ns()}")
                os.symlink(outside, top / "d")
            except OSError:
                continue
            swaps += 1
            os.unlink(top / "d")

    def chunks() -> Iterator[bytes]:
        yield b"a"
        seen, tries = swaps, 0
        while swaps == seen and tries < 1000:
            tries += 1
        yield b"bc"

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        while swaps < 30 and time.monotonic() < deadline:
            try:
                tree.write(file(f"d/{time.monotonic_ns()}"), chunks())
            except DstackError:
                continue
    finally:
        stop.set()
        thread.join()
    assert swaps >= 30
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("entry", [file("d"), link("d", "x")])
def test_a_folder_of_the_user_is_not_removed(tree: SafeFolder, entry: Entry) -> None:
    (Path(tree.path) / "d").mkdir(parents=True)
    with pytest.raises(DstackError, match="directory") as caught:
        tree.write(entry, [BODY])
    assert caught.value.hint
    assert described(Path(tree.path)) == {b"d": ("folder", 0o755, "")}


def test_a_file_of_the_user_is_not_removed_for_a_folder(tree: SafeFolder) -> None:
    tree.write(file("d"), [BODY])
    for entry in (folder("d"), file("d/x"), folder("d/x")):
        with pytest.raises(DstackError) as caught:
            tree.write(entry, [BODY])
        assert caught.value.hint
    assert tree.holds(file("d"))


def test_a_folder_of_the_user_keeps_its_mode(tree: SafeFolder) -> None:
    (Path(tree.path) / "d").mkdir(parents=True, mode=0o711)
    tree.write(folder("d", 0o777), ())
    assert stat.S_IMODE((Path(tree.path) / "d").stat().st_mode) == 0o711


def test_holds_looks_at_the_content(tree: SafeFolder) -> None:
    tree.write(file("f"), [BODY])
    tree.write(link("l", "f"), ())
    tree.write(folder("d"), ())
    assert tree.holds(file("f"))
    assert tree.holds(link("l", "f"))
    assert tree.holds(folder("d"))
    assert not tree.holds(file("f", b"abd"))
    assert not tree.holds(link("l", "g"))
    assert not any(tree.holds(replace(file("f"), path=path)) for path in ("l", "d", "absent", "f/x"))


def test_holds_puts_the_mode_right_but_not_that_of_another_name(tree: SafeFolder, tmp_path: Path) -> None:
    tree.write(file("f"), [BODY])
    assert tree.holds(file("f", mode=0o755))
    assert stat.S_IMODE((Path(tree.path) / "f").stat().st_mode) == 0o755
    os.link(Path(tree.path) / "f", tmp_path / "other name")
    assert not tree.holds(file("f", mode=0o600))
    assert stat.S_IMODE((tmp_path / "other name").stat().st_mode) == 0o755


def test_a_pipe_at_the_place_of_a_file_blocks_nobody(tree: SafeFolder) -> None:
    Path(tree.path).mkdir(parents=True)
    os.mkfifo(Path(tree.path) / "f")
    assert not tree.holds(file("f", b""))
    tree.write(file("f"), [BODY])
    assert tree.holds(file("f"))


def test_this_file_system_tells_names_apart(tree: SafeFolder) -> None:
    folds = tree.folds_names()
    (Path(tree.path) / "a").touch()
    assert folds == (Path(tree.path) / "A").exists()
    assert os.listdir(tree.path) == ["a"]


def test_a_target_that_cannot_be_made_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with SafeFolder(tmp_path / "file" / "below") as tree, pytest.raises(DstackError, match="below"):
        tree.write(file("f"), [BODY])


def test_no_descriptor_is_left_open(tree: SafeFolder) -> None:
    tree.write(file("a/b/c"), [BODY])
    before = len(os.listdir("/proc/self/fd"))
    for path in ("a/b/c", "a/b/c/d", "../x", "a"):
        try:
            tree.write(file(path), [BODY])
        except DstackError:
            continue
    assert len(os.listdir("/proc/self/fd")) == before
