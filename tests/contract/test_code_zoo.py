"""Any state of a repository: what lies on the host is what lay in the work tree, and the repository is untouched."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from pathlib import Path

import pytest

from dstack.adapters.git.snapshots import GitCode
from dstack.runner.store import code as host
from tests.support.code import zoo as code_zoo
from tests.support.code import zoo_special as code_zoo_special
from tests.support.code.state import ZOO, Files, git, write

STATES = (code_zoo, code_zoo_special)  # their import fills the zoo


def files_below(top: Path) -> Files:
    """Kind and content of every file and link, without what git keeps for itself."""
    found: Files = {}
    for folder, names, files in os.walk(os.fsencode(top)):
        names[:] = [name for name in names if name != b".git"]
        links = [name for name in names if os.path.islink(os.path.join(folder, name))]
        for name in [*links, *files]:
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            place = os.path.relpath(path, os.fsencode(top))
            if stat.S_ISLNK(mode):
                found[place] = ("link", os.readlink(path))
            elif stat.S_ISREG(mode) and name != b".git":
                kind = "program" if mode & 0o100 else "file"
                found[place] = (kind, Path(os.fsdecode(path)).read_bytes())
    return found


def photograph(top: Path, *, times: bool) -> dict[bytes, tuple[int, int, int, str]]:
    """Mode, size, time and hash of everything below `top`, .git included; without `times` no times of objects."""
    found = {}
    for folder, names, files in os.walk(os.fsencode(top)):
        for name in [*names, *files]:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            content = b""
            if stat.S_ISREG(status.st_mode):
                content = Path(os.fsdecode(path)).read_bytes()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            size = status.st_size if content else 0
            time = status.st_mtime_ns if times or b"/.git/objects/" not in path else 0
            found[path] = (status.st_mode, size, time, hashlib.sha256(content).hexdigest())
    return found


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with a name, a global ignore file, and nothing of this machine's own configuration."""
    folder = tmp_path / "home"
    write(folder / ".gitconfig", "[user]\n\tname = U\n\temail = u@example.org\n[core]\n\texcludesFile = ~/ignore\n")
    write(folder / "ignore", "*.global\n")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return folder


def ship(code: GitCode, root: Path, target: Path) -> int:
    """Snapshot, bundle, receive, lay; the bytes of the bundle."""
    snapshot = code.snapshot()
    answer = host.basis(str(root), "p", snapshot.commit, list(code.known()))
    size = 0
    if not answer.have:
        spooled = root.parent / "spooled"
        spooled.write_bytes(b"".join(code.bundle(snapshot, answer.basis)))
        size = spooled.stat().st_size
        host.receive(str(root), "p", snapshot.commit, snapshot.tree, str(spooled))
    host.lay(str(root), "p", snapshot.commit, snapshot.tree, str(target))
    return size


@pytest.mark.parametrize("name", sorted(ZOO))
def test_work_tree_arrives_and_repository_stays(name: str, tmp_path: Path) -> None:
    state = ZOO[name](tmp_path / "user")
    top = state.top or state.root
    before = photograph(tmp_path / "user", times=not state.renewed)
    code = GitCode(state.root, tmp_path / "store.git")
    snapshot = code.snapshot()
    assert code.snapshot().commit == snapshot.commit
    code.diff(snapshot)
    ship(code, tmp_path / "host", tmp_path / "work")
    assert photograph(tmp_path / "user", times=not state.renewed) == before
    assert not (tmp_path / "executed").exists()

    def kept(path: bytes) -> bool:
        return not any((os.fsdecode(path) + "/").startswith(gone + "/") for gone in state.absent)

    expected = {path: file for path, file in files_below(top).items() if kept(path)} | state.extra
    assert files_below(tmp_path / "work") == expected
    assert not (tmp_path / "work/.git").exists()
    if state.plain:
        copy = tmp_path / "copy"
        subprocess.run(["cp", "-a", str(top), str(copy)], check=True)
        git(copy, "add", "-A")
        assert snapshot.tree == git(copy, "write-tree")
    prefix = os.fsencode(snapshot.prefix)
    below = sorted(os.fsdecode(path[len(prefix) :]) for path in expected if path.startswith(prefix))
    assert [file.path for file in code.files(snapshot)] == below


def test_there_are_many_states() -> None:
    assert all(module.__doc__ for module in STATES)
    assert len(ZOO) >= 25
