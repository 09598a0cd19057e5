"""What the folder bucket does beyond the port: permissions, links, left-overs, and errors that say what to do."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dstack.adapters.bucket import folder_writer
from dstack.adapters.bucket.folder import FolderBucket
from dstack.app.maintenance.bucket_probe import ensure_probed
from dstack.errors import BucketError
from dstack.ports import Put

DAY = 86_400


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    """Sets the umask for one test."""
    before = os.umask(0o022)
    os.umask(before)
    yield os.umask
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_nothing_is_made_by_opening_or_reading(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path / "new")
    bucket.get("a")
    bucket.list("")
    bucket.children("a/")
    bucket.delete("a/b")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_a_new_bucket_is_private_whatever_the_umask(tmp_path: Path, umask: Callable[[int], int], mask: int) -> None:
    umask(mask)
    FolderBucket(tmp_path / "x" / "new").create("a/b/c", b"1")
    root = tmp_path / "x" / "new"
    assert [mode(path) for path in (root.parent, root, root / "a", root / "a" / "b", root / ".tmp")] == [0o700] * 5
    assert mode(root / "a" / "b" / "c") == 0o600


def test_a_folder_that_others_may_only_read_stays_private_below(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    FolderBucket(tmp_path).create("a/b", b"1")
    assert (mode(tmp_path / "a"), mode(tmp_path / "a" / "b"), mode(tmp_path)) == (0o700, 0o600, 0o755)


@pytest.mark.parametrize(
    ("root", "folder", "file"), [(0o2770, 0o2770, 0o660), (0o770, 0o770, 0o660), (0o777, 0o777, 0o666)]
)
def test_a_shared_folder_keeps_its_rights_below_whatever_the_umask(
    tmp_path: Path, umask: Callable[[int], int], root: int, folder: int, file: int
) -> None:
    umask(0o077)
    tmp_path.chmod(root)
    bucket = FolderBucket(tmp_path)
    bucket.create("a/b/c", b"1")
    bucket.put("a/hb", b"2")
    assert [mode(tmp_path / name) for name in ("a", "a/b", ".tmp")] == [folder] * 3
    assert [mode(tmp_path / name) for name in ("a/b/c", "a/hb")] == [file] * 2


def test_what_is_made_in_a_setgid_folder_belongs_to_its_group(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give a folder to another group")
    os.chown(tmp_path, -1, 54321)
    tmp_path.chmod(0o2770)
    FolderBucket(tmp_path).create("a/b/c", b"1")
    assert {(tmp_path / name).stat().st_gid for name in ("a", "a/b", "a/b/c", ".tmp")} == {54321}


def test_no_symbolic_link_is_followed_inside_the_bucket(tmp_path: Path) -> None:
    secret = tmp_path / "home"
    secret.mkdir()
    (secret / "key").write_bytes(b"secret")
    root = tmp_path / "bucket"
    bucket = FolderBucket(root)
    bucket.create("a/b", b"1")
    (root / "a" / "folder").symlink_to(secret)
    (root / "a" / "file").symlink_to(secret / "key")
    calls: list[Callable[[], object]] = [
        lambda: bucket.get("a/folder/key"),
        lambda: bucket.get("a/file"),
        lambda: list(bucket.read("a/folder/key", 0, 1)),
        lambda: bucket.create("a/folder/new", b"x"),
        lambda: bucket.create("a/file", b"x"),
        lambda: bucket.put("a/folder/key", b"x"),
        lambda: bucket.delete("a/folder/key"),
        lambda: bucket.list("a/folder/"),
        lambda: bucket.children("a/folder/"),
    ]
    for call in calls:
        with pytest.raises(BucketError) as caught:
            call()
        assert "link" in (caught.value.hint or "")
    assert list(bucket.list("")) == ["a/b"]
    assert {path.name: path.read_bytes() for path in secret.iterdir()} == {"key": b"secret"}


def test_the_bucket_itself_may_be_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    FolderBucket(tmp_path / "link").create("a", b"1")
    assert FolderBucket(tmp_path / "real").get("a") == b"1"


def test_what_is_no_file_is_no_object_and_never_blocks(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    assert list(bucket.list("")) == []
    for key in ("pipe", "folder"):
        for call in (lambda: bucket.get(key), lambda: bucket.create(key, b"x")):
            with pytest.raises(BucketError, match=key):
                call()


def test_an_object_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    bucket.create("a", b"1")
    with pytest.raises(BucketError, match="a/b") as caught:
        bucket.create("a/b", b"2")
    assert "no folder" in (caught.value.hint or "")


def test_what_servers_and_desktops_leave_is_not_listed(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    bucket.create("a/b", b"1")
    for name in (".nfs000001", ".DS_Store", "with space", "~lock"):
        (tmp_path / "a" / name).write_bytes(b"")
    assert list(bucket.list("")) == ["a/b"]
    assert list(bucket.children("a/")) == ["b"]


def test_nothing_stays_behind_in_the_folder_for_temporary_files(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    bucket.create("a/b", b"1")
    bucket.create("a/b", b"2")
    bucket.put("a/c", b"3")
    with pytest.raises(BucketError):
        bucket.create("a/b/c", b"4")
    assert os.listdir(tmp_path / ".tmp") == ["swept"]


def left_over(root: Path, name: str, *, age: float) -> Path:
    path = root / ".tmp" / name
    path.write_bytes(b"half")
    then = path.stat().st_mtime - age
    os.utime(path, (then, then))
    return path


def test_what_dead_writers_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    FolderBucket(tmp_path).create("a", b"1")
    old, young = left_over(tmp_path, "00aa", age=3 * DAY), left_over(tmp_path, "00bb", age=DAY)
    folder = tmp_path / ".tmp" / ".tmp.00cc"
    folder.mkdir()
    os.utime(folder, (1, 1))
    FolderBucket(tmp_path).create("b", b"1")
    assert old.exists(), "a sweep was done on the same day already"
    left_over(tmp_path, "swept", age=DAY + 60)
    FolderBucket(tmp_path).create("c", b"1")
    assert not old.exists()
    assert not folder.exists()
    assert young.exists()


def test_one_sweep_looks_at_a_bounded_number_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_writer, "SWEPT_FILES_LIMIT", 10)
    FolderBucket(tmp_path).create("a", b"1")
    for number in range(30):
        left_over(tmp_path, f"{number:04x}", age=3 * DAY)
    left_over(tmp_path, "swept", age=2 * DAY)
    FolderBucket(tmp_path).create("b", b"1")
    assert 20 <= len(list((tmp_path / ".tmp").glob("0*"))) < 30


def failing(call: Callable[..., object], code: int) -> Callable[..., object]:
    def fail(*arguments: object, **options: object) -> object:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_hard_links_is_named_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "link", failing(os.link, code))
    with pytest.raises(BucketError, match="no hard links") as caught:
        FolderBucket(tmp_path).create("a/b", b"1")
    assert "another file system" in (caught.value.hint or "")
    assert os.listdir(tmp_path / ".tmp") == ["swept"]


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_a_lost_answer_of_the_file_server_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "link", failing(os.link, code))
    assert FolderBucket(tmp_path).create("a/b", b"1") is Put.UNKNOWN


def test_a_name_that_could_not_be_flushed_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flush = os.fsync

    def fail_for_folders(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EIO, "disk")
        flush(fd)

    bucket = FolderBucket(tmp_path)
    monkeypatch.setattr(os, "fsync", fail_for_folders)
    assert bucket.create("a/b", b"1") is Put.UNKNOWN


def test_a_server_that_hears_of_one_link_twice_still_says_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def twice(*arguments: Any, **options: Any) -> None:
        link(*arguments, **options)
        link(*arguments, **options)

    monkeypatch.setattr(os, "link", twice)
    assert FolderBucket(tmp_path).create("a/b", b"1") is Put.CREATED


@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        ("write", errno.ENOSPC, "the disk is full"),
        ("fsync", errno.EDQUOT, "quota"),
        ("mkdir", errno.EROFS, "read-only"),
        ("mkdir", errno.EACCES, "permissions"),
        ("link", errno.EXDEV, "another file system"),
    ],
)
def test_an_error_says_where_why_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, words: str
) -> None:
    bucket = FolderBucket(tmp_path)
    bucket.create("z", b"1")
    monkeypatch.setattr(os, call, failing(getattr(os, call), code))
    with pytest.raises(BucketError) as caught:
        bucket.create("a/b", b"1")
    assert f"cannot create {tmp_path}/a/b: {os.strerror(code)}" in str(caught.value)
    assert words in (caught.value.hint or "")


def test_an_object_is_flushed_before_it_has_its_name_and_its_folders_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = FolderBucket(tmp_path)
    bucket.create("z", b"1")
    seen: list[str] = []
    flush = os.fsync

    def record(fd: int) -> None:
        named = "named" if (tmp_path / "a/b/c").exists() else "unnamed"
        path = os.readlink(f"/proc/self/fd/{fd}").removeprefix(str(tmp_path))
        seen.append(f"{named} {path if stat.S_ISDIR(os.fstat(fd).st_mode) else 'file'}")
        flush(fd)

    monkeypatch.setattr(os, "fsync", record)
    bucket.create("a/b/c", b"1")
    assert seen == ["unnamed file", "named /a/b", "named /a", "named "]


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        bucket.create(f"a/{number}/b", b"1")
        bucket.create(f"a/{number}/b", b"1")
        bucket.put(f"a/{number}/c", b"1")
        bucket.get(f"a/{number}/b")
        bucket.get(f"a/{number}/x/y")
        list(bucket.read(f"a/{number}/b", 0, 1))
        next(bucket.read(f"a/{number}/b", 0, 1))
        bucket.list("")
        bucket.children("a/")
        bucket.delete(f"a/{number}/c")
        with pytest.raises(BucketError):
            bucket.create(f"a/{number}/b/c", b"1")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("call", ["link", "rename"])
def test_a_folder_that_is_removed_under_a_writer_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    real = getattr(os, call)
    removed: list[bool] = []

    def remove_first(*arguments: Any, **options: Any) -> None:
        if not removed:
            removed.append(True)
            os.rmdir(tmp_path / "a" / "b")
        real(*arguments, **options)

    bucket = FolderBucket(tmp_path)
    monkeypatch.setattr(os, call, remove_first)
    if call == "link":
        assert bucket.create("a/b/c", b"1") is Put.CREATED
    else:
        bucket.put("a/b/c", b"1")
    assert bucket.get("a/b/c") == b"1"
    assert removed


def test_creating_and_emptying_the_same_folder_at_once_loses_nothing(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for index in range(60):
                key = f"a/b/{number}-{index}"
                assert bucket.create(key, b"1") is Put.CREATED
                assert bucket.get(key) == b"1"
                bucket.delete(key)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(bucket.children("")) == []


def test_a_bucket_whose_folder_was_unmounted_shows_nothing_and_takes_nothing(tmp_path: Path) -> None:
    """An empty folder in its place would say that no attempt was ever claimed."""
    place = tmp_path / "bucket"
    bucket = FolderBucket(place)
    ensure_probed(bucket, nonce="0" * 32, now=0.0)
    bucket.create("a/claim", b"mine")
    away = place.rename(tmp_path / "away")
    refused: list[Callable[[], object]] = [
        lambda: bucket.get("a/claim"),
        lambda: bucket.create("a/claim", b"theirs"),
        lambda: bucket.put("a/hb", b"1"),
        lambda: bucket.list(""),
        lambda: bucket.children("a/"),
        lambda: bucket.delete("a/claim"),
        lambda: list(bucket.read("a/claim", 0, 4)),
    ]
    for call in refused:
        with pytest.raises(BucketError, match="the bucket that was there is gone"):
            call()
    assert not place.exists()
    place.mkdir()  # the empty mount point
    for call in refused:
        with pytest.raises(BucketError, match="gone"):
            call()
    place.rmdir()
    shutil.copytree(away, place)  # mounted anew: another folder to the system, the same bucket
    assert bucket.get("a/claim") == b"mine"
