"""What a snapshot refuses, what it sends, and that it is of one moment."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from pathlib import Path

import pytest

from dstack.adapters.git.index_layer import is_secret
from dstack.adapters.git.repository import strip_credentials
from dstack.adapters.git.snapshot_store import KNOWN_COMMITS_LIMIT
from dstack.adapters.git.snapshots import GitCode
from dstack.errors import SnapshotError
from dstack.model import Snapshot
from dstack.runner.store import code as host


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / ".gitconfig").write_text("[user]\n\tname = U\n\temail = u@example.org\n[init]\n\tdefaultBranch = main\n")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)


@pytest.fixture
def user(tmp_path: Path) -> Path:
    folder = tmp_path / "user"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "a.txt").write_text("one\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "one")
    return folder


@pytest.fixture
def code(user: Path, tmp_path: Path) -> GitCode:
    return GitCode(user, tmp_path / "store" / "p.git")


def sent(code: GitCode, snapshot: Snapshot, root: Path) -> int:
    """Bring a snapshot to the host below `root`; the bytes of the bundle."""
    answer = host.basis(str(root), "p", snapshot.commit, list(code.known()))
    data = b"".join(code.bundle(snapshot, answer.basis))
    spooled = root.parent / "spooled"
    spooled.write_bytes(data)
    host.receive(str(root), "p", snapshot.commit, snapshot.tree, str(spooled))
    return len(data)


def test_one_changed_line_in_2000_files_sends_less_than_20_kb(user: Path, code: GitCode, tmp_path: Path) -> None:
    for number in range(2000):
        folder = user / f"d{number % 40}"
        folder.mkdir(exist_ok=True)
        (folder / f"f{number}.py").write_text(os.urandom(1000).hex())
    assert sent(code, code.snapshot(), tmp_path / "host") > 1_000_000
    with (user / "d7/f7.py").open("a") as file:
        file.write("one more line\n")
    assert sent(code, code.snapshot(), tmp_path / "host") < 20_000


def test_a_host_with_an_earlier_snapshot_gets_the_difference_only(user: Path, code: GitCode, tmp_path: Path) -> None:
    (user / "big").write_bytes(os.urandom(500_000))
    sent(code, code.snapshot(), tmp_path / "host")
    for number in range(12):
        (user / "a.txt").write_text(f"{number}\n")
        code.snapshot()
    assert sent(code, code.snapshot(), tmp_path / "host") < 2_000


def test_a_lost_basis_means_a_whole_bundle(user: Path, code: GitCode, tmp_path: Path) -> None:
    (user / "big").write_bytes(os.urandom(500_000))
    sent(code, code.snapshot(), tmp_path / "host")
    (user / "a.txt").write_text("two\n")
    snapshot = code.snapshot()
    assert sent(code, snapshot, tmp_path / "other") > 500_000
    host.lay(str(tmp_path / "other"), "p", snapshot.commit, snapshot.tree, str(tmp_path / "work"))
    assert (tmp_path / "work/a.txt").read_text() == "two\n"


def test_bundles_outlive_the_repository(user: Path, code: GitCode, tmp_path: Path) -> None:
    (user / "new").write_text("n")
    snapshot = code.snapshot()
    subprocess.run(["rm", "-rf", str(user)], check=True)
    assert sent(code, snapshot, tmp_path / "host") > 0


def test_git_itself_takes_the_bundle(user: Path, code: GitCode, tmp_path: Path) -> None:
    first = code.snapshot()
    (user / "a.txt").write_text("two\n")
    second = code.snapshot()
    git(tmp_path, "init", "-q", "--bare", "other")
    for snapshot, basis in ((first, []), (second, [first.commit])):
        bundle = tmp_path / "bundle"
        bundle.write_bytes(b"".join(code.bundle(snapshot, basis)))
        git(tmp_path / "other", "bundle", "verify", str(bundle))
        git(tmp_path / "other", "fetch", "-q", str(bundle), "refs/dstack/*:refs/dstack/*")
    assert git(tmp_path / "other", "rev-parse", f"{second.commit}^{{tree}}") == second.tree
    git(tmp_path / "other", "fsck", "--strict")


def test_the_same_tree_gives_the_same_commit_anywhere(user: Path, code: GitCode, tmp_path: Path) -> None:
    (user / "new").write_text("n")
    here = code.snapshot()
    git(user, "add", "-A")
    git(user, "commit", "-q", "-m", "two")
    git(tmp_path, "clone", "-q", str(user), "clone")
    there = GitCode(tmp_path / "clone", tmp_path / "other.git").snapshot()
    assert (here.commit, here.dirty) == (there.commit, True)
    assert there.dirty is False


def test_known_is_newest_first(user: Path, code: GitCode) -> None:
    assert code.known() == []
    made = []
    for number in range(3):
        (user / "a.txt").write_text(f"{number}\n")
        made.append(code.snapshot().commit)
    assert list(code.known()) == made[::-1]
    (user / "a.txt").write_text("0\n")
    code.snapshot()
    assert code.known()[0] == made[0]


def test_many_snapshots_are_kept_in_few_packs(user: Path, code: GitCode, tmp_path: Path) -> None:
    snapshots = []
    for number in range(60):
        (user / "a.txt").write_text(f"{number}\n")
        snapshots.append(code.snapshot())
        sent(code, snapshots[-1], tmp_path / "host")
    for store in (tmp_path / "store/p.git", tmp_path / "host/code/p.git"):
        assert len(list((store / "objects/pack").glob("*.pack"))) < 55
        assert len(git(store, "for-each-ref").splitlines()) == 60
        git(store, "fsck", "--strict")


def test_too_much_untracked_stops_before_anything_is_hashed(user: Path, code: GitCode, tmp_path: Path) -> None:
    for number in range(12):
        with (user / f"data{number:02}").open("wb") as file:
            file.truncate((number + 1) * 1_000_000_000)  # sparse: hashing 78 GB would not end
    with pytest.raises(SnapshotError, match="78000 MB in 12 files") as caught:
        code.snapshot()
    assert re.findall(r"data\d\d", str(caught.value)) == [f"data{number:02}" for number in range(11, 1, -1)]
    assert ".gitignore" in (caught.value.hint or "")
    (user / ".gitignore").write_text("data*\n")
    assert code.snapshot().dirty


def test_tracked_files_have_no_limit(user: Path, tmp_path: Path) -> None:
    (user / "big").write_bytes(b"x" * 3000)
    code = GitCode(user, tmp_path / "p.git", untracked_limit=2000)
    with pytest.raises(SnapshotError, match="big"):
        code.snapshot()
    git(user, "add", "big")
    code.snapshot()


def test_a_whole_nested_repository_counts_as_untracked(user: Path, tmp_path: Path) -> None:
    inner = user / "cloned"
    inner.mkdir()
    git(inner, "init", "-q")
    (inner / "big").write_bytes(b"x" * 3000)
    git(inner, "add", "-A")
    with pytest.raises(SnapshotError, match="cloned/big"):
        GitCode(user, tmp_path / "p.git", untracked_limit=2000).snapshot()


def test_an_empty_submodule_is_refused_by_name(user: Path, tmp_path: Path) -> None:
    git(user, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", f"file://{user}", "libs/x")
    git(user, "commit", "-q", "-m", "sub")
    git(tmp_path, "clone", "-q", str(user), "clone")
    with pytest.raises(SnapshotError, match="libs/x") as caught:
        GitCode(tmp_path / "clone", tmp_path / "p.git").snapshot()
    assert caught.value.hint == "git submodule update --init -- libs/x"


def test_dirty_is_false_for_a_clean_submodule_and_true_for_a_moved_one(user: Path, tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    git(top, "init", "-q")
    git(top, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", f"file://{user}", "x")
    git(top, "commit", "-q", "-m", "sub")
    code = GitCode(top, tmp_path / "p.git")
    assert code.snapshot().dirty is False
    (top / "x/a.txt").write_text("changed\n")
    assert code.snapshot().dirty is True
    git(top / "x", "commit", "-q", "-a", "-m", "moved")
    assert code.snapshot().dirty is True


def test_no_repository(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(SnapshotError, match="in no git repository") as caught:
        GitCode(tmp_path / "plain", tmp_path / "p.git").snapshot()
    assert caught.value.hint == "git init"


def test_bare_repository(user: Path, tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="no work tree"):
        GitCode(user / ".git", tmp_path / "p.git").snapshot()


def test_no_git(code: GitCode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SnapshotError, match="git is not installed"):
        code.snapshot()


def test_a_project_folder_that_its_repository_ignores(user: Path, tmp_path: Path) -> None:
    (user / ".gitignore").write_text("project\n")
    (user / "project").mkdir()
    (user / "project/x").write_text("x")
    with pytest.raises(SnapshotError, match="ignores the folder"):
        GitCode(user / "project", tmp_path / "p.git").snapshot()


def test_a_damaged_index_is_told_in_git_s_words(user: Path, code: GitCode) -> None:
    (user / ".git/index").write_bytes(b"nonsense" * 10)
    with pytest.raises(SnapshotError, match=r"git ls-files: .*index file") as caught:
        code.snapshot()
    assert "git status" in (caught.value.hint or "")


def test_lacking_objects_are_told(user: Path, code: GitCode) -> None:
    blob = git(user, "rev-parse", "HEAD:a.txt")
    (user / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(SnapshotError) as caught:
        code.snapshot()
    assert "refetch" in (caught.value.hint or "")
    assert code.known() == []


def test_a_folder_whose_git_is_no_repository_is_a_plain_folder(user: Path, code: GitCode) -> None:
    (user / "sub").mkdir()
    (user / "sub/x").write_text("x")
    (user / "sub/.git").write_text("gitdir: /nowhere\n")
    assert [file.path for file in code.files(code.snapshot())] == ["a.txt", "sub/x"]


def test_a_submodule_with_a_damaged_repository_is_named(user: Path, code: GitCode) -> None:
    git(user, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", f"file://{user}", "libs/x")
    (user / "libs/x/.git").write_text("gitdir: /nowhere\n")
    with pytest.raises(SnapshotError, match="libs/x"):
        code.snapshot()


def test_head_branch_and_remote_are_recorded(user: Path, code: GitCode) -> None:
    git(user, "remote", "add", "origin", "https://me:token@example.org/r.git?x=secret")
    snapshot = code.snapshot()
    assert snapshot.head == git(user, "rev-parse", "HEAD")
    assert (snapshot.branch, snapshot.remote, snapshot.dirty) == ("main", "https://example.org/r.git", False)
    git(user, "checkout", "-q", "--detach")
    assert code.snapshot().branch is None


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("git@example.org:a/b.git", "git@example.org:a/b.git"),
        ("ssh://git:pw@example.org:22/a", "ssh://git@example.org:22/a"),
        ("https://token@example.org/a", "https://example.org/a"),
        ("http://a:b@c@example.org/a#frag", "http://example.org/a"),
        ("/some/folder", "/some/folder"),
    ],
)
def test_urls_lose_their_credentials(url: str, clean: str) -> None:
    assert strip_credentials(url) == clean


@pytest.mark.parametrize(
    ("path", "tracked", "expected"),
    [
        (b".env", True, True),
        (b"a/.env/b", True, True),
        (b"a/.env.local", True, False),
        (b"a/.env.local", False, True),
        (b".envrc", False, False),
        (b"x.env", False, False),
    ],
)
def test_sources_of_secrets(path: bytes, tracked: bool, expected: bool) -> None:
    assert is_secret(path, tracked=tracked) is expected


def test_secrets_are_nowhere_in_store_bundle_or_diff(user: Path, code: GitCode, tmp_path: Path) -> None:
    (user / ".env").write_text("PASSWORD=tracked-by-mistake\n")
    git(user, "add", "-f", ".env")
    git(user, "commit", "-q", "-m", "oops")
    (user / ".env.local").write_text("PASSWORD=untracked\n")
    snapshot = code.snapshot()
    assert b"PASSWORD" not in code.diff(snapshot)
    sent(code, snapshot, tmp_path / "host")
    for store in (tmp_path / "store/p.git", tmp_path / "host/code/p.git"):
        listed = git(store, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)").splitlines()
        assert listed
        assert not any("PASSWORD" in git(store, "cat-file", "-p", name) for name in listed)


def test_diff_shows_changes_against_head(user: Path, code: GitCode) -> None:
    (user / "a.txt").write_text("two\n")
    (user / "new").write_text("new\n")
    text = code.diff(code.snapshot())
    assert b"-one\n+two\n" in text
    assert b"+new\n" in text


def test_diff_is_cut_at_one_mebibyte(user: Path, code: GitCode) -> None:
    (user / "long").write_text("line\n" * 500_000)
    text = code.diff(code.snapshot())
    assert len(text) == 1 << 20
    assert text.endswith(b"left out]\n")


def test_files_that_keep_changing_are_refused(user: Path, code: GitCode) -> None:
    stop = threading.Event()

    def writes() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            (user / "a.txt").write_text(f"{number:09}\n")
            stop.wait(0.001)

    writer = threading.Thread(target=writes)
    writer.start()
    try:
        with pytest.raises(SnapshotError, match=r"a\.txt"):
            code.snapshot()
    finally:
        stop.set()
        writer.join()
    code.snapshot()


def test_no_snapshot_mixes_two_moments(user: Path, code: GitCode, tmp_path: Path) -> None:
    """A writer sets files one after the other, so at any moment their numbers fall and differ by one at most."""
    names = [f"n{number:02}" for number in range(40)]
    stop = threading.Event()

    def writes() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            for name in names:
                (user / name).write_text(f"{number:09}")
            stop.wait(0.08 if number % 2 else 0.12)

    writer = threading.Thread(target=writes)
    writer.start()
    taken = 0
    try:
        for _ in range(12):
            try:
                snapshot = code.snapshot()
            except SnapshotError:
                continue
            listed = {file.path: file.blob for file in code.files(snapshot)}
            if names[0] not in listed:
                continue
            values = [int(git(tmp_path / "store/p.git", "cat-file", "-p", listed[name]) or 0) for name in names]
            taken += 1
            assert values == sorted(values, reverse=True)
            assert values[0] - values[-1] <= 1
    finally:
        stop.set()
        writer.join()
    assert taken


def test_a_caller_s_git_variables_do_not_matter(user: Path, code: GitCode, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = code.snapshot()
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", "/nowhere/objects")
    assert code.snapshot() == expected


def test_the_store_is_private_and_leaves_no_quarantine(code: GitCode, tmp_path: Path) -> None:
    code.snapshot()
    store = tmp_path / "store/p.git"
    assert store.stat().st_mode & 0o777 == 0o700
    assert list((store / "quarantine").iterdir()) == []


def test_two_processes_may_make_snapshots_at_once(user: Path, tmp_path: Path) -> None:
    results: list[Snapshot] = []
    store = tmp_path / "p.git"
    (user / "new").write_text("n")
    threads = [threading.Thread(target=lambda: results.append(GitCode(user, store).snapshot())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert len({snapshot.commit for snapshot in results}) == 1
    git(store, "fsck", "--strict")


def test_a_bundle_may_be_given_up_half_way(user: Path, code: GitCode) -> None:
    (user / "big").write_bytes(os.urandom(3_000_000))
    stream = code.bundle(code.snapshot(), [])
    assert next(stream).startswith(b"# v2 git bundle\n")
    next(stream)
    stream.close()  # type: ignore[attr-defined]


def test_an_old_snapshot_is_still_there(user: Path, code: GitCode) -> None:
    """A run may be taken up again long after: more snapshots came since than count as a basis."""
    first = code.snapshot()
    for number in range(KNOWN_COMMITS_LIMIT + 1):
        (user / "count").write_text(str(number))
        code.snapshot()
    assert first.commit not in code.known()
    assert code.has(first)


def test_an_unknown_snapshot_is_told(code: GitCode) -> None:
    snapshot = code.snapshot()
    strange = Snapshot(commit="0" * 40, tree=snapshot.tree, prefix="", head=None, branch=None, remote=None, dirty=False)
    with pytest.raises(SnapshotError, match="no snapshot"):
        list(code.bundle(strange, []))
