"""Any state of a repository: what lies on the host is what lay in the work tree, and the repository is untouched."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dstack.adapters.git import GitCode
from dstack.runner import code as host

Files = dict[bytes, tuple[str, bytes]]


@dataclass(kw_only=True)
class State:
    """What a builder made: the project folder, and how the host's tree differs from the files on the laptop."""

    root: Path
    top: Path | None = None
    absent: set[str] = field(default_factory=set)
    """Files and folders that must not be shipped."""
    extra: Files = field(default_factory=dict)
    """Files that are shipped though they are not in the work tree."""
    plain: bool = True
    """The tree is the one that `git add -A && git write-tree` gives."""
    renewed: bool = False
    """git may renew the times of objects in the user's store, which it does when it expands a sparse index."""


Builder = Callable[[Path], State]
ZOO: dict[str, Builder] = {}


def zoo(builder: Builder) -> Builder:
    ZOO[builder.__name__] = builder
    return builder


def git(folder: Path, *arguments: str, ok: bool = True) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    setup = ["-c", "protocol.file.allow=always"]
    done = subprocess.run(["git", *setup, *arguments], cwd=folder, env=env, capture_output=True, check=False)
    assert done.returncode == 0 or not ok, done.stderr.decode()
    return done.stdout.decode("utf-8", "surrogateescape").strip()


def write(path: Path, data: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def started(folder: Path, *options: str) -> Path:
    """A repository with two commits."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main", *options)
    write(folder / "a.txt", "first\n")
    write(folder / "pkg/b.py", "print(1)\n")
    write(folder / "pkg/deep/c.py", "print(2)\n")
    write(folder / "gone.txt", "to go\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "one")
    write(folder / "a.txt", "second\n")
    git(folder, "commit", "-q", "-a", "-m", "two")
    return folder


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


@zoo
def no_commits_yet(at: Path) -> State:
    at.mkdir()
    git(at, "init", "-q")
    write(at / "a.txt", "x")
    git(at, "add", "a.txt")
    write(at / "b.txt", "y")
    return State(root=at)


@zoo
def nothing_but_untracked(at: Path) -> State:
    at.mkdir()
    git(at, "init", "-q")
    write(at / "only.txt", "x")
    return State(root=at)


@zoo
def clean(at: Path) -> State:
    return State(root=started(at))


@zoo
def staged(at: Path) -> State:
    write(started(at) / "a.txt", "staged\n")
    git(at, "add", "a.txt")
    return State(root=at)


@zoo
def staged_then_changed(at: Path) -> State:
    write(started(at) / "a.txt", "staged\n")
    git(at, "add", "a.txt")
    write(at / "a.txt", "and changed\n")
    return State(root=at)


@zoo
def changed_to_the_same_size(at: Path) -> State:
    write(started(at) / "a.txt", "SECOND\n")
    return State(root=at)


@zoo
def untracked(at: Path) -> State:
    write(started(at) / "new/deep/x.py", "new")
    write(at / "pkg/y.py", "")
    return State(root=at)


@zoo
def deleted(at: Path) -> State:
    (started(at) / "gone.txt").unlink()
    shutil.rmtree(at / "pkg/deep")
    return State(root=at)


@zoo
def deleted_and_staged(at: Path) -> State:
    git(started(at), "rm", "-q", "gone.txt")
    return State(root=at)


@zoo
def out_of_the_index_but_there(at: Path) -> State:
    git(started(at), "rm", "-q", "--cached", "gone.txt")
    return State(root=at)


@zoo
def renamed(at: Path) -> State:
    git(started(at), "mv", "pkg/b.py", "moved.py")
    (at / "gone.txt").rename(at / "other.txt")
    return State(root=at)


@zoo
def binary(at: Path) -> State:
    write(started(at) / "data.bin", bytes(range(256)) * 1000)
    git(at, "add", "data.bin")
    write(at / "data.bin", bytes(range(255, -1, -1)) * 999)
    return State(root=at)


@zoo
def modes(at: Path) -> State:
    (started(at) / "a.txt").chmod(0o755)
    write(at / "run.sh", "#!/bin/sh\n").chmod(0o700)
    write(at / "read-only", "x").chmod(0o444)
    return State(root=at)


@zoo
def links(at: Path) -> State:
    started(at)
    for name, target in (("dangling", "nowhere"), ("folder", "pkg"), ("outside", "/etc/passwd"), ("up", "../..")):
        (at / name).symlink_to(target)
    git(at, "add", "folder")
    return State(root=at)


@zoo
def kinds_changed(at: Path) -> State:
    started(at)
    (at / "a.txt").unlink()
    (at / "a.txt").symlink_to("gone.txt")
    shutil.rmtree(at / "pkg")
    write(at / "pkg", "a file now")
    (at / "gone.txt").unlink()
    write(at / "gone.txt/inside", "a folder now")
    return State(root=at)


@zoo
def folder_became_a_link_to_its_like(at: Path) -> State:
    started(at)
    (at / "pkg").rename(at / "moved")
    (at / "pkg").symlink_to("moved")
    return State(root=at)


@zoo
def odd_names(at: Path) -> State:
    started(at)
    names = ["line\nbreak", "-rf", "--", "tab\t", " lead", "trail ", "quo\"te'", "back\\slash", "*", ":(top)x", "ü"]
    names += [
        "u\u0308",
        "日本",
        "\U0001f600",
        "x" * 255,
        "~",
        "$(touch x)",
        ".gitfoo",
        "...",
        "#c",
        "!n",
        "con",
        "A",
        "é",
    ]
    for name in names:
        write(at / name, name)
        write(at / "in" / name / "f", name)
    git(at, "add", "-A")
    for name in names[::2]:
        write(at / name, "changed " + name)
    return State(root=at)


@zoo
def names_that_are_not_text(at: Path) -> State:
    started(at)
    for name in (b"\xff\xfe", b"caf\xe9.py", b"dir\x80/\x81"):
        write(Path(os.fsdecode(os.path.join(os.fsencode(at), name))), name)
    return State(root=at)


@zoo
def case_twins(at: Path) -> State:
    write(started(at) / "File", "1")
    write(at / "file", "2")
    git(at, "add", "File")
    return State(root=at)


@zoo
def empty_files_and_folders(at: Path) -> State:
    write(started(at) / "empty", "")
    (at / "hollow/deep").mkdir(parents=True)
    return State(root=at)


@zoo
def pipes_and_sockets(at: Path) -> State:
    os.mkfifo(started(at) / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(at)
        try:
            listener.bind("sock")
        finally:
            os.chdir(here)
    return State(root=at)


@zoo
def detached_head(at: Path) -> State:
    git(started(at), "checkout", "-q", "--detach", "HEAD~1")
    write(at / "a.txt", "detached")
    return State(root=at)


@zoo
def linked_worktree(at: Path) -> State:
    git(started(at / "main"), "worktree", "add", "-q", str(at / "linked"), "-b", "side")
    write(at / "linked/a.txt", "in the linked one")
    write(at / "linked/new", "n")
    return State(root=at / "linked", plain=False)


@zoo
def locked_index(at: Path) -> State:
    write(started(at) / ".git/index.lock", "")
    write(at / "a.txt", "locked")
    return State(root=at, plain=False)


@zoo
def in_the_middle_of_a_rebase(at: Path) -> State:
    started(at)
    git(at, "checkout", "-q", "-b", "side", "HEAD~1")
    write(at / "a.txt", "other\n")
    git(at, "commit", "-q", "-a", "-m", "side")
    git(at, "rebase", "main", ok=False)
    assert (at / ".git/rebase-merge").exists()
    assert "<<<<" in (at / "a.txt").read_text()
    return State(root=at)


@zoo
def merge_conflict_with_a_deletion(at: Path) -> State:
    started(at)
    git(at, "checkout", "-q", "-b", "side")
    git(at, "rm", "-q", "a.txt")
    git(at, "commit", "-q", "-m", "del")
    git(at, "checkout", "-q", "main")
    write(at / "a.txt", "kept\n")
    git(at, "commit", "-q", "-a", "-m", "kept")
    git(at, "merge", "side", ok=False)
    (at / "a.txt").unlink()
    return State(root=at)


@zoo
def sparse_checkout(at: Path) -> State:
    git(started(at), "sparse-checkout", "set", "--cone", "pkg/deep")
    write(at / "a.txt", "sparse")
    git(at, "sparse-checkout", "set", "--no-cone", "/pkg/deep/")
    shown = ("gone.txt", "pkg/b.py")
    extra: Files = {
        name.encode(): ("file", git(at, "show", f"HEAD:{name}").encode() + b"\n")
        for name in shown
        if not (at / name).exists()
    }
    assert extra
    return State(root=at, extra=extra, plain=False)


@zoo
def sparse_index(at: Path) -> State:
    started(at)
    git(at, "sparse-checkout", "set", "--cone", "--sparse-index", "pkg/deep")
    write(at / "wide/x", "x")
    git(at, "add", "--sparse", "wide/x")
    git(at, "commit", "-q", "-m", "wide")
    git(at, "sparse-checkout", "reapply")
    assert not (at / "wide").exists()
    return State(root=at, extra={b"wide/x": ("file", b"x")}, plain=False, renewed=True)


@zoo
def present_despite_skip_worktree(at: Path) -> State:
    git(started(at), "update-index", "--skip-worktree", "a.txt")
    write(at / "a.txt", "what the job would see")
    return State(root=at, plain=False)


@zoo
def assumed_unchanged(at: Path) -> State:
    git(started(at), "update-index", "--assume-unchanged", "a.txt")
    write(at / "a.txt", "what the job would see")
    return State(root=at, plain=False)


@zoo
def intent_to_add(at: Path) -> State:
    write(started(at) / "soon.txt", "soon")
    git(at, "add", "-N", "soon.txt")
    return State(root=at)


@zoo
def shallow_clone(at: Path) -> State:
    started(at / "origin")
    git(at, "clone", "-q", "--depth", "1", f"file://{at}/origin", "clone")
    write(at / "clone/new", "n")
    return State(root=at / "clone")


@zoo
def objects_of_another_repository(at: Path) -> State:
    started(at / "origin")
    git(at, "clone", "-q", "--shared", "origin", "clone")
    write(at / "clone/new", "n")
    return State(root=at / "clone")


@zoo
def everything_packed(at: Path) -> State:
    git(started(at), "gc", "-q")
    write(at / "new", "n")
    return State(root=at)


@zoo
def subfolder_of_a_larger_repository(at: Path) -> State:
    started(at)
    write(at / "pkg/deep/new.py", "n")
    write(at / "beside", "b")
    return State(root=at / "pkg", top=at)


@zoo
def ignored_in_four_ways(at: Path) -> State:
    write(started(at) / ".gitignore", "*.log\n!keep.log\nbuild/\n")
    write(at / ".git/info/exclude", "/scratch\n")
    for name in ("x.log", "keep.log", "build/o", "scratch", "x.global", "pkg/y.local", "pkg/z"):
        write(at / name, name)
    write(at / "pkg/.gitignore", "*.local\n")
    absent = {"x.log", "build", "scratch", "x.global", "pkg/y.local"}
    return State(root=at, absent=absent)


@zoo
def tracked_though_ignored(at: Path) -> State:
    write(started(at) / ".gitignore", "a.txt\nnew\n")
    write(at / "a.txt", "changed")
    write(at / "new", "added by force")
    git(at, "add", "-f", "new")
    return State(root=at)


@zoo
def split_index(at: Path) -> State:
    git(started(at), "update-index", "--split-index")
    write(at / "a.txt", "split")
    git(at, "add", "a.txt")
    assert list((at / ".git").glob("sharedindex.*"))
    return State(root=at)


@zoo
def index_version_four_with_caches(at: Path) -> State:
    git(started(at), "update-index", "--index-version", "4")
    git(at, "config", "core.untrackedCache", "true")
    git(at, "update-index", "--untracked-cache")
    git(at, "status")
    write(at / "pkg/new", "n")
    return State(root=at)


@zoo
def modes_not_trusted(at: Path) -> State:
    git(started(at), "config", "core.fileMode", "false")
    git(at, "update-index", "--chmod=+x", "a.txt")
    (at / "a.txt").chmod(0o755)
    return State(root=at)


@zoo
def sha256_ids(at: Path) -> State:
    started(at, "--object-format=sha256")
    write(at / "new", "n")
    return State(root=at)


@zoo
def environment_files(at: Path) -> State:
    started(at)
    for name in (".env", "pkg/.env", ".env.local", "pkg/deep/.env.prod", ".env.example", ".envrc", "x.env"):
        write(at / name, "TOKEN=1")
    git(at, "add", "-f", "pkg/.env", ".env.example")
    git(at, "commit", "-q", "-m", "oops")
    write(at / ".venv/.env/secret", "s")
    return State(root=at, absent={".env", "pkg/.env", ".env.local", "pkg/deep/.env.prod", ".venv"}, plain=False)


def library(at: Path) -> Path:
    return started(at / "library")


def with_submodule(at: Path) -> Path:
    library(at)
    git(started(at / "user"), "submodule", "--quiet", "add", f"file://{at}/library", "libs/one")
    git(at / "user", "commit", "-q", "-m", "sub")
    return at / "user"


@zoo
def submodule(at: Path) -> State:
    return State(root=with_submodule(at), plain=False)


@zoo
def submodule_with_changes(at: Path) -> State:
    root = with_submodule(at)
    write(root / "libs/one/a.txt", "changed inside")
    write(root / "libs/one/new", "new inside")
    write(root / "libs/one/.gitignore", "*.log\n")
    write(root / "libs/one/x.log", "ignored inside")
    return State(root=root, absent={"libs/one/x.log"}, plain=False)


@zoo
def submodule_in_a_submodule(at: Path) -> State:
    root = with_submodule(at)
    inner = root / "libs/one"
    git(inner, "submodule", "--quiet", "add", f"file://{at}/library", "deeper")
    write(inner / "deeper/new", "far inside")
    return State(root=root, plain=False)


@zoo
def submodule_taken_away(at: Path) -> State:
    root = with_submodule(at)
    shutil.rmtree(root / "libs")
    return State(root=root, plain=False)


@zoo
def project_inside_a_submodule(at: Path) -> State:
    root = with_submodule(at)
    return State(root=root / "libs/one/pkg", top=root / "libs/one", plain=False)


@zoo
def nested_repository(at: Path) -> State:
    started(at)
    started(at / "vendor/inner")
    write(at / "vendor/inner/new", "n")
    return State(root=at, plain=False)


@zoo
def nested_repository_without_commits(at: Path) -> State:
    started(at)
    write(at / "vendor/inner/new", "n")
    git(at / "vendor/inner", "init", "-q")
    (at / "empty").mkdir()
    git(at / "empty", "init", "-q")
    return State(root=at, plain=False)


@zoo
def filtered_content(at: Path) -> State:
    """What git-lfs does: the repository has pointers, the work tree has the content."""
    started(at)
    git(at, "config", "filter.big.clean", "sed s/.*/pointer/")
    git(at, "config", "filter.big.smudge", "cat")
    write(at / ".gitattributes", "*.big filter=big\n*.rot filter=rot\n")
    git(at, "config", "filter.rot.clean", "tr a-z b-za")
    git(at, "config", "filter.rot.smudge", "tr b-za a-z")
    write(at / "model.big", "the real content\n" * 3)
    write(at / "same.rot", "as long as before\n")
    git(at, "add", "-A")
    git(at, "commit", "-q", "-m", "big")
    assert git(at, "show", "HEAD:model.big").startswith("pointer")
    return State(root=at, plain=False)


@zoo
def filtered_by_attributes_not_yet_added(at: Path) -> State:
    started(at)
    git(at, "config", "filter.big.clean", "sed s/.*/pointer/")
    write(at / "pkg/.gitattributes", "*.big filter=big\n")
    write(at / "pkg/model.big", "the real content\n")
    git(at, "add", "pkg/model.big")
    return State(root=at, plain=False)


@zoo
def line_ends(at: Path) -> State:
    started(at)
    write(at / ".gitattributes", "* text=auto\n*.bat text eol=crlf\n")
    write(at / "x.bat", "one\r\ntwo\r\n")
    write(at / "y.txt", "one\ntwo\n")
    git(at, "add", "-A")
    git(at, "commit", "-q", "-m", "crlf")
    write(at / "z.txt", "un\r\ntracked\r\n")
    return State(root=at, plain=False)


@zoo
def line_ends_by_configuration(at: Path) -> State:
    started(at)
    git(at, "config", "core.autocrlf", "input")
    write(at / "x.txt", "one\r\ntwo\r\n")
    git(at, "add", "x.txt")
    return State(root=at, plain=False)


@zoo
def other_encodings_and_ident(at: Path) -> State:
    started(at)
    write(at / ".gitattributes", "*.u16 working-tree-encoding=UTF-16\n*.id ident\n")
    write(at / "t.u16", "grüße\n".encode("utf-16"))
    write(at / "v.id", "$Id$\n")
    git(at, "add", "-A")
    git(at, "commit", "-q", "-m", "enc")
    (at / "v.id").unlink()
    git(at, "checkout", "v.id")
    assert len((at / "v.id").read_text()) > 10
    return State(root=at, plain=False)


@zoo
def nothing_in_it_may_run(at: Path) -> State:
    """Every way in which a repository's own configuration can name a program; the test looks for the mark."""
    started(at)
    mark = at.parent / "executed"
    run = f"sh -c 'touch {mark}; cat'"
    write(at / ".gitattributes", "* filter=evil diff=evil merge=evil\n")
    for name in ("filter.evil.clean", "filter.evil.smudge", "filter.evil.process", "diff.evil.textconv"):
        git(at, "config", name, run)
    settings = ("core.fsmonitor", "diff.external", "diff.evil.command", "core.pager", "core.editor", "core.sshCommand")
    for name in (
        *settings,
        "gpg.program",
        "credential.helper",
        "uploadpack.packObjectsHook",
        "core.alternateRefsCommand",
    ):
        git(at, "config", name, run)
    git(at, "config", "commit.gpgSign", "true")
    git(at, "config", "log.showSignature", "true")
    for hook in ("post-index-change", "pre-commit", "reference-transaction", "post-checkout", "fsmonitor-watchman"):
        write(at / ".git/hooks" / hook, f"#!/bin/sh\ntouch {mark}\n").chmod(0o755)
    write(at / "a.txt", "changed")
    write(at / "new", "n")
    mark.unlink(missing_ok=True)
    return State(root=at, plain=False)


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
    if not answer["have"]:
        spooled = root.parent / "spooled"
        spooled.write_bytes(b"".join(code.bundle(snapshot, answer["basis"])))
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
    assert len(ZOO) >= 25
