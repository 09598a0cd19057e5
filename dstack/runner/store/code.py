"""Snapshots on a host: received as git bundles, kept in a bare repository for each project, laid as work trees.

A bundle is hostile until checked. The pack of a bundle goes through `index-pack --strict` into a quarantine folder; the
objects enter the store only when commit, tree and every name are in order. Git runs with no configuration but our own:
no hooks, filters, fsmonitor, protocols, submodules, and attributes that convert nothing.

A work tree has no `.git` and is plain files: a job cannot reach the store, and a snapshot cannot steer git.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from typing import IO, Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from dstack.private_folder import WRITE_RIGHTS, UntrustedError, close_folder, make_folder
from dstack.runner.base import disk_room
from dstack.wire import NO_ROOM, RAW_ATTRIBUTES, Refusal, is_commit
from dstack.wire.host_messages import CodeBasisAnswer

OLDEST_GIT = (2, 17)
PROJECT_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
GIT_VERSION_FORM = re.compile(rb"git version (\d+)\.(\d+)")
MAX_HEADER_BYTES = 1 << 20
MAX_BUNDLE_BASES = 8
QUARANTINE_AGE_S = 24 * 3600
MAX_LOOSE_PACKS = 50
SAFE_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "core.symlinks=true",
    "core.fileMode=true",
    "core.autocrlf=false",
    "core.protectHFS=true",
    "core.protectNTFS=true",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.compression=1",
    # stores and indexes are private whatever the umask is; work trees follow the umask
    "core.sharedRepository=0600",
    "protocol.allow=never",
    "protocol.file.allow=always",
    "submodule.recurse=false",
    "gc.auto=0",
    "maintenance.auto=false",
    # several processes that lay files at once are twice as slow on a disk as one
    "checkout.workers=1",
)
FILE_MODES = (b"100644", b"100755", b"120000")
UPDATE_HINT = "run the command again; if it stays so, remove %s on the host"


class CodeError(Refusal):
    """A snapshot that cannot be received or laid, by fault of coordinator (`code`), `host` or full disk (NO_ROOM)."""


class Bundle(NamedTuple):
    """The head of a bundle file: needed object ids, brought ids by ref, and the offset of the pack."""

    needs: Tuple[str, ...]
    brings: Dict[str, str]
    offset: int


@contextlib.contextmanager
def os_errors_as_code_errors() -> Iterator[None]:
    """Turns a refusal of the operating system into a CodeError."""
    try:
        yield
    except UntrustedError as error:
        raise CodeError("host", "the code cannot be kept: %s" % error, error.hint) from None
    except OSError as error:
        message = "the code cannot be kept: %s: %s" % (error.strerror, error.filename)
        refusal = disk_room.refusal(error, "host", message, "look at that path on the host")
        raise CodeError(refusal.kind, refusal.message, refusal.hint) from None


@os_errors_as_code_errors()
def basis(root: str, project: str, commit: str, known: Sequence[str]) -> CodeBasisAnswer:
    """The commits on this host: `have` the commit itself, and in `basis` up to 8 of `known`, in their order.

    Starts no process. Raises CodeError for a malformed name or a foreign store.
    """
    store = store_path(root, project)
    check_object_id(commit)
    if not os.path.isdir(store):
        return CodeBasisAnswer(have=False, basis=())
    check_owner(store)
    held = [base for base in known if is_commit(base) and has(store, base)]
    return CodeBasisAnswer(have=has(store, commit), basis=tuple(held[:MAX_BUNDLE_BASES]))


@os_errors_as_code_errors()
def receive(root: str, project: str, commit: str, tree: str, bundle_path: str) -> None:
    """Take the snapshot out of a bundle file into the store of `project` below `root`.

    Afterwards `refs/dstack/<commit>` and everything behind the ref is there; on CodeError nothing entered the store.
    Any number of receivers may work at once. The bundle file is only read.
    """
    check_object_id(commit)
    check_object_id(tree)
    store = ensure_store(root, project, sha256=len(commit) == 64)
    if has(store, commit):
        return  # another coordinator was faster
    head = read_header(bundle_path)
    if head.brings.get("refs/dstack/" + commit) != commit:
        raise CodeError("code", "the bundle does not bring the snapshot %s" % commit, "run the command again")
    lacking = [need for need in head.needs if not has(store, need)]
    if lacking:
        raise CodeError("code", "this host lacks %s, on which the bundle builds" % lacking[0], "run the command again")
    with quarantine(store) as folder:
        objects = os.path.join(folder, "objects")
        make_folder(os.path.join(objects, "pack"))
        make_folder(os.path.join(objects, "info"))
        # Git finds the objects of the store from the quarantine, and writes none into the store.
        with open(os.path.join(objects, "info", "alternates"), "w") as file:
            file.write("../../../objects\n")
        env = {"GIT_OBJECT_DIRECTORY": objects}
        unpack(store, bundle_path, head.offset, env)
        check_commit(store, commit, tree, env)
        check_names(store, tree, env)
        move_packs(os.path.join(objects, "pack"), os.path.join(store, "objects", "pack"))
    write_snapshot_ref(store, commit)
    join_packs(store)


@os_errors_as_code_errors()
def lay(root: str, project: str, commit: str, tree: str, target: str) -> None:
    """Write the files of a snapshot into `target`, a new or empty folder; no `.git` is put there.

    Files are 0644 or 0755 and folders 0755 below `target`, the folder `target` is 0700. The first time a commit is laid
    on this host all files are hashed again and must give `tree`. Raises CodeError; then `target` may hold a part.
    """
    check_object_id(tree)
    store = store_path(root, project)
    check_object_id(commit)
    if not os.path.isdir(store) or not has(store, commit):
        raise CodeError("code", "this host does not have the snapshot %s" % commit, "run the command again")
    check_owner(store)
    empty_folder(target)
    with quarantine(store) as folder:
        env = {"GIT_WORK_TREE": target, "GIT_INDEX_FILE": os.path.join(folder, "index")}
        proven = os.path.join(store, "laid", commit)
        if read_text(proven) != tree:
            check_commit(store, commit, tree, {})
            check_names(store, tree, {})
        git(store, ["read-tree", "--reset", "-u", tree], env=env, cwd=target)
        if read_text(proven) != tree:
            check_work_tree(store, tree, target, os.path.join(folder, "again"))
            write_file(folder, proven, tree)


def check_work_tree(store: str, tree: str, target: str, index: str) -> None:
    """Hash the files in `target` from nothing; raises CodeError unless the hash is `tree`."""
    env = {"GIT_WORK_TREE": target, "GIT_INDEX_FILE": index}
    git(store, ["add", "-A", "-f", "."], env=env, cwd=target)
    found = git(store, ["write-tree"], env=env, cwd=target).decode().strip()
    if found != tree:
        raise CodeError(
            "code",
            "the files laid from the snapshot are not those that were packed: tree %s instead of %s" % (found, tree),
            "the file system below %s changes names or contents; choose another `dir` for this host" % target,
        )


def check_object_id(name: Any) -> str:
    """An object id; raises CodeError for anything else."""
    if not isinstance(name, str) or not is_commit(name):
        raise CodeError("code", "not an object id: %r" % (name,))
    return name


def store_path(root: str, project: Any) -> str:
    """The folder of a project's store; raises CodeError for a name that could lead elsewhere."""
    if not isinstance(project, str) or not PROJECT_FORM.fullmatch(project):
        raise CodeError("code", "not a project name: %r" % (project,))
    return os.path.join(root, "code", project + ".git")


def has(store: str, commit: str) -> bool:
    """Whether the store holds a snapshot whole: its ref is written last."""
    return os.path.isfile(os.path.join(store, "refs", "dstack", commit))


def check_owner(store: str) -> None:
    """Raises CodeError unless the store is a real folder for the writes of this account alone; dstack's own stores are
    closed."""
    found = os.lstat(store)
    is_made = os.path.isdir(os.path.join(store, "refs", "dstack"))  # else it is the user's, below `dir: ~`
    is_alone = found.st_uid == os.getuid() and (is_made or not found.st_mode & WRITE_RIGHTS)
    if not stat.S_ISDIR(found.st_mode) or not is_alone:
        raise CodeError("host", "%s is not a folder of this account alone" % store, "move it away on the host")
    if is_made:
        close_folder(store)


def ensure_store(root: str, project: str, sha256: bool) -> str:
    """The store of a project, made on demand; the first of several makers wins."""
    store = store_path(root, project)
    if not os.path.lexists(store):
        check_version()
        parent = os.path.dirname(store)
        make_folder(parent)
        fresh = tempfile.mkdtemp(dir=parent, prefix=".new-")
        try:
            init_store(fresh, sha256)
            with contextlib.suppress(OSError):
                os.rename(fresh, store)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    check_owner(store)
    if ("sha256" in (read_text(os.path.join(store, "config")) or "")) != sha256:
        raise CodeError("host", "%s holds another kind of object ids" % store, "remove it on the host")
    return store


def init_store(folder: str, sha256: bool) -> None:
    """Make an empty bare repository of constant content: no template of the host's gets in."""
    kind = ["--object-format=sha256"] if sha256 else []
    git(folder, ["init", "-q", "--bare", "--template=", *kind, folder], env={}, cwd=folder)
    for name in ("info", "refs/dstack", "laid", "quarantine"):
        make_folder(os.path.join(folder, name))
    with open(os.path.join(folder, "info", "attributes"), "w") as file:
        file.write(RAW_ATTRIBUTES)


def read_header(path: str) -> Bundle:
    """The text ahead of the pack of a bundle file; raises CodeError for any other file."""
    needs: List[str] = []
    brings: Dict[str, str] = {}
    with open(path, "rb") as file:
        if file.readline(64) not in (b"# v2 git bundle\n", b"# v3 git bundle\n"):
            raise CodeError("code", "what arrived is not a git bundle", "run the command again")
        while file.tell() < MAX_HEADER_BYTES:
            line = file.readline(4096)
            if line == b"\n":
                return Bundle(tuple(needs), brings, file.tell())
            name, _, rest = line.decode("utf-8", "replace").strip().partition(" ")
            if not line.endswith(b"\n") or not name:
                break
            if name.startswith("-"):
                needs.append(check_object_id(name[1:]))
            elif not name.startswith("@object-format="):
                brings[rest] = check_object_id(name)
    raise CodeError("code", "the bundle ends in its header", "run the command again")


def unpack(store: str, path: str, offset: int, env: Dict[str, str]) -> None:
    """Index the pack of a bundle into the quarantine; git checks each object and that none is missing."""
    with open(path, "rb", buffering=0) as file:
        # git reads from the descriptor's own position
        os.lseek(file.fileno(), offset, os.SEEK_SET)
        git(store, ["index-pack", "--stdin", "--fix-thin", "--strict"], env=env, cwd=store, stdin=file)


def check_commit(store: str, commit: str, tree: str, env: Dict[str, str]) -> None:
    """Raises CodeError unless `commit` is a parentless commit of `tree`."""
    body = git(store, ["cat-file", "commit", commit], env=env, cwd=store)
    lines = body.split(b"\n\n", 1)[0].split(b"\n")
    if lines[0] != b"tree " + tree.encode() or any(line.startswith(b"parent ") for line in lines):
        raise CodeError("code", "the snapshot %s is not one of tree %s" % (commit, tree), "run the command again")


def check_names(store: str, tree: str, env: Dict[str, str]) -> None:
    """Raises CodeError for a tree with anything but plain files and links under harmless names."""
    listing = git(store, ["ls-tree", "-r", "-z", "--full-tree", tree], env=env, cwd=store)
    for line in listing.split(b"\0")[:-1]:
        front, _, path = line.partition(b"\t")
        mode = front.split(b" ", 1)[0]
        if mode not in FILE_MODES:
            raise CodeError("code", "%r in the snapshot is neither file nor link" % os.fsdecode(path))
        if any(part in (b"", b".", b"..") or part.lower() == b".git" for part in path.split(b"/")):
            raise CodeError("code", "%r in the snapshot is a name that leads elsewhere" % os.fsdecode(path))


def move_packs(source: str, target: str) -> None:
    """Move checked packs into the store; the index last, because git looks for that."""
    names = os.listdir(source)
    for name in sorted(names, key=lambda name: name.endswith(".idx")):
        os.replace(os.path.join(source, name), os.path.join(target, name))


def write_snapshot_ref(store: str, commit: str) -> None:
    """Write the ref: from here on the host has the snapshot."""
    write_file(os.path.join(store, "quarantine"), os.path.join(store, "refs", "dstack", commit), commit + "\n")


def join_packs(store: str) -> None:
    """Join many small packs into one; nothing is dropped. A failure is no harm."""
    packs = [name for name in os.listdir(os.path.join(store, "objects", "pack")) if name.endswith(".pack")]
    if len(packs) > MAX_LOOSE_PACKS:
        with contextlib.suppress(CodeError):
            git(store, ["repack", "-a", "-d", "-k", "-q"], env={}, cwd=store)


@contextlib.contextmanager
def quarantine(store: str) -> Iterator[str]:
    """A folder of our own on the store's file system, gone afterwards; old ones of killed runners go too."""
    parent = os.path.join(store, "quarantine")
    make_folder(parent)
    for entry in os.scandir(parent):
        with contextlib.suppress(OSError):
            if time.time() - entry.stat(follow_symlinks=False).st_mtime > QUARANTINE_AGE_S:
                shutil.rmtree(entry.path, ignore_errors=True)
    folder = tempfile.mkdtemp(dir=parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def empty_folder(target: str) -> None:
    """Make `target`, 0700; raises CodeError when it is anything but a new or empty folder."""
    make_folder(target)
    if os.path.islink(target) or os.listdir(target):
        raise CodeError("host", "%s is not an empty folder" % target, "remove it on the host")


def read_text(path: str) -> Optional[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return None


def write_file(folder: str, path: str, text: str) -> None:
    """Write a small file whole and durable, by rename from `folder` on the same file system."""
    handle, name = tempfile.mkstemp(dir=folder)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(name, path)


def check_version() -> None:
    """Raises CodeError when git is missing or older than 2.17."""
    found = GIT_VERSION_FORM.search(git("/", ["version"], env={}, cwd="/"))
    if found is None or (int(found.group(1)), int(found.group(2))) < OLDEST_GIT:
        raise CodeError("host", "git on this host is older than 2.17", "install a newer git on this host")


def environment(store: str, extra: Dict[str, str]) -> Dict[str, str]:
    """The whole environment of git: nothing of the account's own gets in but PATH."""
    env = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": store,
        "XDG_CONFIG_HOME": store,
        "LC_ALL": "C",
        "GIT_DIR": store,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_ALLOW_PROTOCOL": "file",
    }
    env.update(extra)
    return env


def git(
    store: str, arguments: Sequence[str], *, env: Dict[str, str], cwd: str, stdin: Optional[IO[bytes]] = None
) -> bytes:
    """The output of git; raises CodeError with the last line of a failed git, and without a git."""
    settings = [part for setting in SAFE_SETTINGS for part in ("-c", setting)]
    try:
        done = subprocess.run(
            ["git", *settings, *arguments],
            env=environment(store, env),
            cwd=cwd,
            stdin=stdin if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            umask=0o022,
            check=False,
        )
    except FileNotFoundError:
        raise CodeError("host", "git is not installed on this host", "install git 2.17 or newer there") from None
    except OSError as error:
        raise CodeError("host", "git cannot be started: %s" % error.strerror) from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
        last = lines[-1].strip() if lines else "exit code %d" % done.returncode
        message = "git %s: %s" % (arguments[0], last)
        if disk_room.was_no_room("\n".join(lines), cwd):
            raise CodeError(NO_ROOM, "%s: %s" % (disk_room.DISK_FULL, message), disk_room.DISK_ROOM_HINT)
        raise CodeError("code", message, UPDATE_HINT % store)
    return done.stdout
