"""States with content that is not simply in the index: secrets, nested repositories, conversions, programs."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.code.state import State, git, old, started, write, zoo


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
    old(write(at / "model.big", "the real content\n" * 3))
    old(write(at / "same.rot", "as long as before\n"))
    git(at, "add", "-A")
    git(at, "commit", "-q", "-m", "big")
    assert git(at, "show", "HEAD:model.big").startswith("pointer")
    return State(root=at, plain=False)


@zoo
def filtered_by_attributes_not_yet_added(at: Path) -> State:
    started(at)
    git(at, "config", "filter.big.clean", "sed s/.*/pointer/")
    write(at / "pkg/.gitattributes", "*.big filter=big\n")
    old(write(at / "pkg/model.big", "the real content\n"))
    git(at, "add", "pkg/model.big")
    return State(root=at, plain=False)


@zoo
def line_ends(at: Path) -> State:
    started(at)
    write(at / ".gitattributes", "* text=auto\n*.bat text eol=crlf\n")
    old(write(at / "x.bat", "one\r\ntwo\r\n"))
    write(at / "y.txt", "one\ntwo\n")
    git(at, "add", "-A")
    git(at, "commit", "-q", "-m", "crlf")
    write(at / "z.txt", "un\r\ntracked\r\n")
    return State(root=at, plain=False)


@zoo
def line_ends_by_configuration(at: Path) -> State:
    started(at)
    git(at, "config", "core.autocrlf", "input")
    old(write(at / "x.txt", "one\r\ntwo\r\n"))
    git(at, "add", "x.txt")
    return State(root=at, plain=False)


@zoo
def other_encodings_and_ident(at: Path) -> State:
    started(at)
    write(at / ".gitattributes", "*.u16 working-tree-encoding=UTF-16\n*.id ident\n")
    old(write(at / "t.u16", "grüße\n".encode("utf-16")))
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
