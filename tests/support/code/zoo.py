"""States that any repository may be in."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

from tests.support.code.state import Files, State, git, started, write, zoo


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
