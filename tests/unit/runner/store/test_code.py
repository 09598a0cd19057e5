"""A host takes good bundles and lays them; from hostile ones nothing is executed, kept or written elsewhere.

Runs on Python 3.9 too: nothing but the runner is imported.
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from dstack import wire
from dstack.runner.store import code as host

Entry = tuple[str, bytes, str]
"""Mode, raw name, object id."""


class Smith:
    """Makes objects and bundles, also such as git itself would refuse to make."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spooled = folder.parent / "spooled"
        self.made: list[str] = []
        folder.mkdir()
        self.git("init", "-q", "--bare")

    def git(self, *arguments: str, data: bytes = b"") -> bytes:
        identity = {}
        for role in ("AUTHOR", "COMMITTER"):
            identity.update({f"GIT_{role}_NAME": "n", f"GIT_{role}_EMAIL": "e", f"GIT_{role}_DATE": "@0 +0000"})
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), **identity}
        return subprocess.run(
            ["git", *arguments], cwd=self.folder, env=env, input=data, stdout=subprocess.PIPE, check=True
        ).stdout

    def blob(self, data: bytes) -> str:
        return self.kept(self.git("hash-object", "-w", "--stdin", data=data))

    def tree(self, entries: list[Entry]) -> str:
        body = b"".join(mode.encode() + b" " + name + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries)
        command = ("hash-object", "-w", "-t", "tree", "--literally", "--stdin")
        return self.kept(self.git(*command, data=body))

    def commit(self, tree: str, parent: str | None = None) -> str:
        parents = ["-p", parent] if parent else []
        return self.kept(self.git("commit-tree", tree, *parents, data=b"m"))

    def kept(self, printed: bytes) -> str:
        self.made.append(printed.decode().strip())
        return self.made[-1]

    def bundle_of_everything(self, commit: str) -> bytes:
        """Made without walking trees, which git refuses for some."""
        head = "# v2 git bundle\n%s refs/dstack/%s\n\n" % (commit, commit)
        names = "".join(name + "\n" for name in dict.fromkeys(self.made))
        return head.encode() + self.git("pack-objects", "--stdout", "-q", data=names.encode())

    def pack(self, commit: str, without: str | None = None) -> bytes:
        revisions = commit + "\n" + ("^" + without + "\n" if without else "")
        options = ("--revs", "--thin", "--shallow", "--stdout", "-q")
        return self.git("pack-objects", *options, data=revisions.encode())

    def bundle(self, commit: str, without: str | None = None) -> bytes:
        need = "-%s\n" % without if without else ""
        head = "# v2 git bundle\n%s%s refs/dstack/%s\n\n" % (need, commit, commit)
        return head.encode() + self.pack(commit, without)

    def files(self, files: dict[str, bytes]) -> tuple[str, str]:
        """Commit and tree of plain files in one folder."""
        entries = sorted(("100644", name.encode(), self.blob(data)) for name, data in files.items())
        tree = self.tree(sorted(entries, key=lambda entry: entry[1]))
        return self.commit(tree), tree

    def spool(self, data: bytes) -> str:
        self.spooled.write_bytes(data)
        return str(self.spooled)


@pytest.fixture
def smith(tmp_path: Path) -> Smith:
    return Smith(tmp_path / "smith")


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "host")


def below(top: Path) -> dict[str, str]:
    """Every path below `top` with a hash of its content."""
    found = {}
    for folder, names, files in os.walk(str(top)):
        for name in names + files:
            path = os.path.join(folder, name)
            data = os.readlink(path).encode() if os.path.islink(path) else b""
            if stat.S_ISREG(os.lstat(path).st_mode):
                data = Path(path).read_bytes()
            found[path] = hashlib.sha256(data).hexdigest()
    return found


def test_received_files_are_laid(smith: Smith, root: str, tmp_path: Path) -> None:
    commit, tree = smith.files({"a": b"A", "b": b"B"})
    host.receive(root, "p", commit, tree, smith.spool(smith.bundle(commit)))
    host.lay(root, "p", commit, tree, str(tmp_path / "work"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "work").iterdir()} == {"a": b"A", "b": b"B"}
    assert host.basis(root, "p", commit, []).to_json() == {"have": True, "basis": []}


def test_basis_names_what_is_there_in_the_order_asked(smith: Smith, root: str) -> None:
    one, tree = smith.files({"a": b"1"})
    assert host.basis(root, "p", one, [one]).to_json() == {"have": False, "basis": []}
    two, other = smith.files({"a": b"2"})
    host.receive(root, "p", one, tree, smith.spool(smith.bundle(one)))
    host.receive(root, "p", two, other, smith.spool(smith.bundle(two)))
    answer = host.basis(root, "p", "0" * 40, ["f" * 40, two, "../../etc/passwd", one])
    assert answer.to_json() == {"have": False, "basis": [two, one]}


def test_a_thin_bundle_needs_its_basis(smith: Smith, root: str, tmp_path: Path) -> None:
    one, first = smith.files({"a": b"line\n" * 1000, "b": b"B"})
    two, second = smith.files({"a": b"line\n" * 1000 + b"more\n", "b": b"B"})
    thin = smith.bundle(two, without=one)
    with pytest.raises(host.CodeError, match="lacks"):
        host.receive(root, "p", two, second, smith.spool(thin))
    host.receive(root, "p", one, first, smith.spool(smith.bundle(one)))
    host.receive(root, "p", two, second, smith.spool(thin))
    host.lay(root, "p", two, second, str(tmp_path / "work"))
    assert (tmp_path / "work/a").read_bytes().endswith(b"more\n")


def test_a_thin_bundle_that_hides_its_basis_is_refused(smith: Smith, root: str) -> None:
    one, _ = smith.files({"a": b"line\n" * 1000, "b": b"B"})
    two, second = smith.files({"a": b"line\n" * 1000 + b"more\n", "b": b"B"})
    head = ("# v2 git bundle\n%s refs/dstack/%s\n\n" % (two, two)).encode()
    with pytest.raises(host.CodeError):
        host.receive(root, "p", two, second, smith.spool(head + smith.pack(two, without=one)))
    assert host.basis(root, "p", two, []).have is False


def test_modes_and_folders_are_the_same_on_every_host(smith: Smith, root: str, tmp_path: Path) -> None:
    inner = smith.tree([("100755", b"run", smith.blob(b"#!"))])
    tree = smith.tree([("100644", b"a", smith.blob(b"A")), ("40000", b"d", inner), ("120000", b"l", smith.blob(b"a"))])
    commit = smith.commit(tree)
    host.receive(root, "p", commit, tree, smith.spool(smith.bundle(commit)))
    before = os.umask(0o077)
    try:
        host.lay(root, "p", commit, tree, str(tmp_path / "work"))
    finally:
        os.umask(before)
    modes = {name: os.lstat(str(tmp_path / "work" / name)).st_mode & 0o777 for name in ("a", "d", "d/run", "")}
    assert modes == {"a": 0o644, "d": 0o755, "d/run": 0o755, "": 0o700}
    assert os.readlink(str(tmp_path / "work/l")) == "a"


def test_attributes_and_ignore_files_in_the_code_convert_nothing(smith: Smith, root: str, tmp_path: Path) -> None:
    files = {
        ".gitattributes": b"* text eol=crlf ident filter=evil working-tree-encoding=UTF-16\n",
        ".gitignore": b"*\n",
        "a": b"$Id$\nline\n",
        "b": b"\xff\xfe\r\n",
    }
    commit, tree = smith.files(files)
    host.receive(root, "p", commit, tree, smith.spool(smith.bundle(commit)))
    host.lay(root, "p", commit, tree, str(tmp_path / "work"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "work").iterdir()} == files


@pytest.mark.parametrize("last", ["", "this is no configuration"])
def test_the_account_s_own_configuration_is_not_read(
    last: str, smith: Smith, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "executed"
    home = tmp_path / "home"
    (home / "hooks").mkdir(parents=True)
    hook = home / "hooks" / "post-index-change"
    hook.write_text("#!/bin/sh\ntouch %s\n" % mark)
    hook.chmod(0o755)
    run = "sh -c 'touch %s; cat'" % mark
    (home / ".gitconfig").write_text(
        '[core]\n\thooksPath = %s\n\tfsmonitor = "%s"\n[filter "evil"]\n\tsmudge = "%s"\n\tclean = "%s"\n'
        "[init]\n\ttemplateDir = %s\n%s\n" % (home / "hooks", run, run, run, home, last)
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", run)
    commit, tree = smith.files({".gitattributes": b"* filter=evil\n", "a": b"A"})
    host.receive(root, "p", commit, tree, smith.spool(smith.bundle(commit)))
    host.lay(root, "p", commit, tree, str(tmp_path / "work"))
    assert (tmp_path / "work/a").read_bytes() == b"A"
    assert not mark.exists()


def hostile_names() -> list[bytes]:
    odd = [b"..", b".", b".git", b".GIT", b".Git", b"git~1", b".git ", b".git.", b".g\xe2\x80\x8cit", b"a/b", b"../x"]
    return [*odd, b"/etc/passwd", b"", b".git\\x", b".git::$INDEX_ALLOCATION"]


@pytest.mark.parametrize("name", hostile_names())
@pytest.mark.parametrize("kind", ["file", "folder", "deep"])
def test_names_that_lead_elsewhere_are_refused(name: bytes, kind: str, smith: Smith, root: str, tmp_path: Path) -> None:
    inner = smith.tree([("100755", b"hooks", smith.blob(b"#!/bin/sh\ntouch executed\n"))])
    blob = smith.blob(b"[core]\n\tfsmonitor = touch executed\n")
    tree = smith.tree([("100644", name, blob) if kind == "file" else ("40000", name, inner)])
    if kind == "deep":
        tree = smith.tree([("40000", b"d", tree)])
    commit = smith.commit(tree)
    refused(smith, root, tmp_path, commit, tree, smith.bundle_of_everything(commit))


def refused(smith: Smith, root: str, tmp_path: Path, commit: str, tree: str, data: bytes | None = None) -> None:
    """The bundle is refused; nothing of it stays on the host, and nothing changes outside."""
    good, known = smith.files({"good": b"G"})
    host.receive(root, "p", good, known, smith.spool(smith.bundle(good)))
    spooled = smith.spool(smith.bundle(commit) if data is None else data)
    before = below(tmp_path)
    with pytest.raises(host.CodeError):
        host.receive(root, "p", commit, tree, spooled)
    assert below(tmp_path) == before
    with pytest.raises(host.CodeError):
        host.lay(root, "p", commit, tree, str(tmp_path / "work"))
    assert not (tmp_path / "work").exists()
    host.lay(root, "p", good, known, str(tmp_path / "good"))


def test_a_link_and_a_folder_of_one_name_are_refused(smith: Smith, root: str, tmp_path: Path) -> None:
    inner = smith.tree([("100644", b"passwd", smith.blob(b"x"))])
    tree = smith.tree([("120000", b"a", smith.blob(b"/tmp")), ("40000", b"a", inner)])
    refused(smith, root, tmp_path, smith.commit(tree), tree)


def test_a_gitlink_is_refused(smith: Smith, root: str, tmp_path: Path) -> None:
    other, _ = smith.files({"x": b"x"})
    modules = smith.blob(b'[submodule "x"]\n\tpath = x\n\turl = -u./payload\n')
    tree = smith.tree([("100644", b".gitmodules", modules), ("160000", b"x", other)])
    refused(smith, root, tmp_path, smith.commit(tree), tree)


def test_a_lone_gitlink_is_refused(smith: Smith, root: str, tmp_path: Path) -> None:
    tree = smith.tree([("160000", b"x", "1" * 40)])
    refused(smith, root, tmp_path, smith.commit(tree), tree)


def test_gitmodules_as_a_link_is_refused(smith: Smith, root: str, tmp_path: Path) -> None:
    tree = smith.tree([("120000", b".gitmodules", smith.blob(b"/etc/passwd"))])
    refused(smith, root, tmp_path, smith.commit(tree), tree)


def test_another_tree_than_promised_is_refused(smith: Smith, root: str, tmp_path: Path) -> None:
    commit, _ = smith.files({"a": b"A"})
    _, tree = smith.files({"b": b"B"})
    refused(smith, root, tmp_path, commit, tree)


def test_another_commit_than_promised_is_refused(smith: Smith, root: str, tmp_path: Path) -> None:
    commit, tree = smith.files({"a": b"A"})
    other, _ = smith.files({"b": b"B"})
    refused(smith, root, tmp_path, commit, tree, smith.bundle(other))
    head = ("# v2 git bundle\n%s refs/dstack/%s\n\n" % (commit, commit)).encode()
    spooled = smith.spool(head + smith.pack(other))
    with pytest.raises(host.CodeError):
        host.receive(root, "p", commit, tree, spooled)


def test_a_commit_with_a_parent_is_refused(smith: Smith, root: str, tmp_path: Path) -> None:
    parent, tree = smith.files({"a": b"A"})
    refused(smith, root, tmp_path, smith.commit(tree, parent), tree)


def test_a_lacking_blob_is_refused(smith: Smith, root: str, tmp_path: Path) -> None:
    blob = smith.blob(b"to be lost")
    tree = smith.tree([("100644", b"a", blob)])
    commit = smith.commit(tree)
    names = (commit + "\n" + tree + "\n").encode()
    head = ("# v2 git bundle\n%s refs/dstack/%s\n\n" % (commit, commit)).encode()
    refused(smith, root, tmp_path, commit, tree, head + smith.git("pack-objects", "--stdout", "-q", data=names))


def test_damaged_bundles_are_refused_at_every_length(smith: Smith, root: str, tmp_path: Path) -> None:
    commit, tree = smith.files({"a": os.urandom(300), "b": b"B"})
    whole = smith.bundle(commit)
    for length in range(0, len(whole), 23):
        with pytest.raises(host.CodeError):
            host.receive(root, "p", commit, tree, smith.spool(whole[:length]))
    for place in range(0, len(whole), 23):
        turned = whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
        with pytest.raises(host.CodeError):
            host.receive(root, "p", commit, tree, smith.spool(turned))
    assert host.basis(root, "p", commit, []).have is False
    host.receive(root, "p", commit, tree, smith.spool(whole))
    host.lay(root, "p", commit, tree, str(tmp_path / "work"))


@pytest.mark.parametrize("project", ["..", ".", "", "a/b", "/etc", "-x", "a\0b", ".git", "a" * 300])
def test_project_names_that_lead_elsewhere_are_refused(project: str, smith: Smith, root: str) -> None:
    commit, tree = smith.files({"a": b"A"})
    with pytest.raises(host.CodeError):
        host.receive(root, project, commit, tree, smith.spool(smith.bundle(commit)))
    with pytest.raises(host.CodeError):
        host.basis(root, project, commit, [])
    assert not os.path.exists(root)


@pytest.mark.parametrize("name", ["HEAD", "--help", "../../x", "", "g" * 40, "a" * 39, "A" * 40])
def test_object_ids_are_nothing_else(name: str, root: str, tmp_path: Path) -> None:
    for commit, tree in ((name, "a" * 40), ("a" * 40, name)):
        with pytest.raises(host.CodeError):
            host.receive(root, "p", commit, tree, "/dev/null")
        with pytest.raises(host.CodeError):
            host.lay(root, "p", commit, tree, str(tmp_path / "work"))


def test_the_tree_is_hashed_again_when_laid_first(smith: Smith, root: str, tmp_path: Path) -> None:
    commit, tree = smith.files({"a": b"A"})
    host.receive(root, "p", commit, tree, smith.spool(smith.bundle(commit)))
    store = tmp_path / "host/code/p.git"
    # A store that converts line ends stands for any host that writes something else than it was given.
    (store / "info/attributes").write_text("* text eol=crlf\n")
    crlf, other = smith.files({"a": b"one\r\ntwo\n"})
    host.receive(root, "p", crlf, other, smith.spool(smith.bundle(crlf)))
    with pytest.raises(host.CodeError, match="not those that were packed"):
        host.lay(root, "p", crlf, other, str(tmp_path / "work"))
    assert not (store / "laid" / crlf).exists()
    (store / "info/attributes").write_text(wire.RAW_ATTRIBUTES)
    host.lay(root, "p", crlf, other, str(tmp_path / "again"))
    assert (store / "laid" / crlf).read_text() == other


def test_lay_wants_an_empty_folder_and_follows_no_link(smith: Smith, root: str, tmp_path: Path) -> None:
    commit, tree = smith.files({"a": b"A"})
    host.receive(root, "p", commit, tree, smith.spool(smith.bundle(commit)))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    for name in ("full", "link"):
        with pytest.raises(host.CodeError, match="not an empty folder"):
            host.lay(root, "p", commit, tree, str(tmp_path / name))
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert (tmp_path / "full/mine").read_text() == "mine"


def test_a_store_of_another_user_is_refused(smith: Smith, root: str, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a folder away")
    commit, tree = smith.files({"a": b"A"})
    host.receive(root, "p", commit, tree, smith.spool(smith.bundle(commit)))
    os.chown(str(tmp_path / "host/code/p.git"), 12345, 12345)
    with pytest.raises(host.CodeError, match="not a folder of this account"):
        host.basis(root, "p", commit, [])
    with pytest.raises(host.CodeError, match="not a folder of this account"):
        host.receive(root, "p", "a" * 40, tree, smith.spool(b""))
    with pytest.raises(host.CodeError, match="not a folder of this account"):
        host.lay(root, "p", commit, tree, str(tmp_path / "work"))


def test_a_store_that_is_a_link_is_refused(smith: Smith, root: str, tmp_path: Path) -> None:
    commit, tree = smith.files({"a": b"A"})
    (tmp_path / "host/code").mkdir(parents=True)
    (tmp_path / "host/code/p.git").symlink_to(smith.folder)
    with pytest.raises(host.CodeError, match="not a folder"):
        host.receive(root, "p", commit, tree, smith.spool(smith.bundle(commit)))


def test_many_receive_and_lay_at_once(smith: Smith, root: str, tmp_path: Path) -> None:
    made = [smith.files({"a": b"A%d" % number, "same": b"S" * 5000}) for number in range(4)]
    errors: list[BaseException] = []

    def work(number: int) -> None:
        commit, tree = made[number % 4]
        spooled = tmp_path / ("spooled%d" % number)
        spooled.write_bytes(bundles[number % 4])
        try:
            host.receive(root, "p", commit, tree, str(spooled))
            host.lay(root, "p", commit, tree, str(tmp_path / ("work%d" % number)))
        except BaseException as error:
            errors.append(error)

    bundles = [smith.bundle(commit) for commit, _ in made]
    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for number in range(12):
        assert (tmp_path / ("work%d" % number) / "a").read_bytes() == b"A%d" % (number % 4)
    assert os.listdir(os.path.join(root, "code")) == ["p.git"]


def test_folders_are_private(smith: Smith, root: str, tmp_path: Path) -> None:
    commit, tree = smith.files({"a": b"A"})
    host.receive(root, "p", commit, tree, smith.spool(smith.bundle(commit)))
    assert (tmp_path / "host/code/p.git").stat().st_mode & 0o777 == 0o700
    os.chmod(str(tmp_path / "host/code/p.git"), 0o755)
    host.basis(root, "p", commit, [])
    assert (tmp_path / "host/code/p.git").stat().st_mode & 0o777 == 0o700


def test_a_repository_of_the_users_in_the_place_of_a_store_keeps_its_mode(root: str, tmp_path: Path) -> None:
    repository = tmp_path / "host/code/p.git"
    repository.mkdir(parents=True)
    for bits in (0o755, 0o775):
        repository.chmod(bits)
        if bits == 0o755:
            host.check_owner(str(repository))
        else:
            with pytest.raises(host.CodeError, match="not a folder of this account alone"):
                host.check_owner(str(repository))
        assert repository.stat().st_mode & 0o777 == bits


def test_no_git_on_the_host_is_said(smith: Smith, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, tree = smith.files({"a": b"A"})
    spooled = smith.spool(smith.bundle(commit))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(host.CodeError, match="git is not installed") as caught:
        host.receive(root, "p", commit, tree, spooled)
    assert caught.value.kind == "host"
    assert "2.17" in caught.value.hint


def test_an_old_git_on_the_host_is_said(
    smith: Smith, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, tree = smith.files({"a": b"A"})
    spooled = smith.spool(smith.bundle(commit))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/git").write_text("#!/bin/sh\necho git version 2.11.0\n")
    (tmp_path / "bin/git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin") + ":" + os.environ["PATH"])
    with pytest.raises(host.CodeError, match=r"older than 2\.17"):
        host.receive(root, "p", commit, tree, spooled)


def test_what_the_system_refuses_is_a_code_error(smith: Smith, root: str, tmp_path: Path) -> None:
    commit, tree = smith.files({"a": b"A"})
    (tmp_path / "host").write_text("a file where the folder should be")
    with pytest.raises(host.CodeError, match="cannot be kept"):
        host.receive(root, "p", commit, tree, smith.spool(smith.bundle(commit)))
