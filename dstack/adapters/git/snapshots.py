"""The user's code as snapshots: one commit with all files of the work tree but ignored files.

The whole repository is shipped, so that a job in a subfolder can import modules beside the subfolder. Nested
repositories and submodules are shipped as plain files; `.env` files are not shipped.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from dstack.adapters.git.command import c_quote, start
from dstack.adapters.git.index_layer import IndexLayer
from dstack.adapters.git.repository import Repository, find_repository
from dstack.adapters.git.snapshot_store import KNOWN_COMMITS_LIMIT, CodeStore, end_process
from dstack.errors import SnapshotError
from dstack.model import CodeFile, Snapshot
from dstack.private_folder import make_folder, write_scratch

UNTRACKED_LIMIT_BYTES = 50_000_000
"""Most bytes of untracked files in a snapshot."""
DIFF_LIMIT_BYTES = 1 << 20
DIFF_CUT_NOTE = b"\n[the diff is longer than 1 MiB: the rest was left out]\n"
SNAPSHOT_ATTEMPTS = 5
SNAPSHOT_RETRY_PAUSE_S = 0.05
"""Seconds between two tries of a snapshot while files change."""
NESTED_REPOSITORIES_LIMIT = 1000
"""Most repositories in a snapshot."""
COMMIT_MESSAGE = "dstack snapshot\n"
_NOBODY = {"NAME": "dstack", "EMAIL": "dstack@localhost", "DATE": "@0 +0000"}
COMMIT_IDENTITY = {f"GIT_{role}_{part}": value for role in ("AUTHOR", "COMMITTER") for part, value in _NOBODY.items()}


class GitCode:
    """Implements `CodePort` and `CodeSource` for the project in `root` (anywhere inside a git work tree).

    `store` is a bare repository of dstack's own, made on demand, from which any process can make bundles later. The
    user's repository is only read: index, refs, objects and files stay byte for byte the same.
    """

    def __init__(self, root: Path, store: Path, *, untracked_limit: int = UNTRACKED_LIMIT_BYTES) -> None:
        self._root = root.absolute()
        self._store = CodeStore(store.absolute())
        self._limit = untracked_limit
        self._objects: Path | None = None
        """The objects of the user's repository, once a snapshot has found the folder."""

    def snapshot(self) -> Snapshot:
        """Pack the code of one moment into the store; the same tree gives the same commit.

        Raises SnapshotError, with the next step, without a repository or git, for untracked files above the limit
        (before reading any), for a submodule without content, and for files that keep changing.
        """
        moved: tuple[bytes, ...] = ()
        # No lock keeps an editor from writing: a snapshot is tried until nothing changed during the hashing.
        for attempt in range(SNAPSHOT_ATTEMPTS):
            if attempt:
                time.sleep(SNAPSHOT_RETRY_PAUSE_S)
            repository = find_repository(self._root)
            self._objects = repository.objects
            self._store.ensure(sha256=repository.sha256)
            with self._store.quarantine() as folder:
                packing = SnapshotAttempt(repository, folder=folder, store=self._store)
                packing.survey(self._limit)
                moved = packing.hash()
                if not moved:
                    return packing.finish()
        names = ", ".join(os.fsdecode(path) for path in moved[:3])
        raise SnapshotError(
            f"files changed each time the code was packed: {names}" + (" …" if len(moved) > 3 else ""),
            hint="wait until they are written, or name them in .gitignore",
        )

    def files(self, snapshot: Snapshot) -> Sequence[CodeFile]:
        """Every file of the snapshot below the project folder, ascending by path (undecodable bytes as surrogates)."""
        self._require(snapshot)
        return sorted(self._list_files(snapshot.tree, snapshot.prefix), key=lambda file: file.path)

    def diff(self, snapshot: Snapshot) -> bytes:
        """The snapshot against its head as a patch, without sources of secrets; cut, with a note, at 1 MiB.

        A head no longer in the repository counts as no head: all files are new.
        """
        self._require(snapshot)
        objects = self._objects or find_repository(self._root).objects
        env = self._store.env({"GIT_ALTERNATE_OBJECT_DIRECTORIES": c_quote(objects)})
        base = self._head_tree(snapshot.head, env)
        if base is None:
            base = self._store.git("hash-object", "-t", "tree", "/dev/null").decode().strip()
        hidden = ["**/.env", "**/.env/**", "**/.env.*", *self._links(base, env)]
        options = ["-p", "-M", "--no-color", "--no-ext-diff", "--no-textconv", "--full-index"]
        paths = ["--", ".", *(f":(exclude,glob){pattern}" for pattern in hidden)]
        process = start(
            ["diff-tree", *options, base, snapshot.tree, *paths],
            env=env,
            cwd=self._store.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert process.stdout is not None
            text = process.stdout.read(DIFF_LIMIT_BYTES + 1)
        finally:
            end_process(process)
        return text if len(text) <= DIFF_LIMIT_BYTES else text[: DIFF_LIMIT_BYTES - len(DIFF_CUT_NOTE)] + DIFF_CUT_NOTE

    def bundle(self, snapshot: Snapshot, basis: Sequence[str]) -> Iterator[bytes]:
        """A git bundle of the snapshot for a reader with the commits `basis`; unknown commits are passed over."""
        return self._store.bundle(snapshot.commit, basis)

    def known(self) -> Sequence[str]:
        """Snapshot commits of this project, newest first, at most 64."""
        return self._store.commits()[:KNOWN_COMMITS_LIMIT]

    def has(self, snapshot: Snapshot) -> bool:
        """Whether the code store holds the snapshot."""
        return self._store.has(snapshot.commit)

    def _require(self, snapshot: Snapshot) -> None:
        if not self.has(snapshot):
            raise SnapshotError(
                f"the code store {self._store.path} has no snapshot {snapshot.commit}", hint="run the command again"
            )

    def _list_files(self, tree: str, prefix: str) -> Iterator[CodeFile]:
        where = f"{tree}:{prefix}" if prefix else tree
        for line in self._store.git("ls-tree", "-r", "-z", "--full-tree", where).split(b"\0")[:-1]:
            front, _, path = line.partition(b"\t")
            mode, _, blob = front.decode().split(" ")
            yield CodeFile(path=os.fsdecode(path), mode=mode, blob=blob)

    def _head_tree(self, head: str | None, env: dict[str, str]) -> str | None:
        if head is None:
            return None
        try:
            return self._store.git("rev-parse", "-q", "--verify", f"{head}^{{tree}}", extra=env).decode().strip()
        except SnapshotError:
            return None

    def _links(self, tree: str, env: dict[str, str]) -> list[str]:
        """Patterns of the submodules of a tree, whose files the snapshot has and a patch cannot show."""
        lines = self._store.git("ls-tree", "-r", "-z", "--full-tree", tree, extra=env).split(b"\0")
        names = [os.fsdecode(line.partition(b"\t")[2]) for line in lines if line.startswith(b"160000")]
        return [pattern for name in names for pattern in (escape_glob(name), escape_glob(name) + "/**")]


class SnapshotAttempt:
    """A single try of a snapshot: the repository and all nested repositories, packed in a common quarantine."""

    def __init__(self, repository: Repository, *, folder: Path, store: CodeStore) -> None:
        self._folder = folder
        self._store = store
        self._objects = folder / "objects"
        make_folder(str(self._objects / "info"))
        write_scratch(str(self._objects / "info/alternates"), os.fsencode(c_quote(store.path / "objects") + "\n"))
        self._sources: list[Path] = []
        self._layers: list[IndexLayer] = []
        self._foreign: set[bytes] = set()
        """Places of nested repositories other than submodules: all of their files are untracked."""
        self._root = self._add(repository, b"")

    def survey(self, limit: int) -> None:
        """Find all files of all layers; raises SnapshotError for too many untracked bytes. Hashes nothing."""
        for layer in self._layers:  # grows while it is walked
            layer.survey()
            for path in layer.nested:
                self._descend(layer, path)
        sizes = [size for layer in self._layers for size in layer.sizes(all_files=self._is_foreign(layer.at))]
        # Before hashing: reading gigabytes of forgotten data would take minutes before the error.
        if sum(size for size, _ in sizes) > limit:
            raise untracked_limit_error(sizes, limit)

    def hash(self) -> tuple[bytes, ...]:
        """Hash new content -> the paths changed meanwhile, none when all is of one moment."""
        for layer in self._layers:
            layer.hash()
        return tuple(path for layer in self._layers for path in layer.changed_paths())

    def finish(self) -> Snapshot:
        """Write trees and commit, and bring both into the store."""
        trees: dict[bytes, str] = {}
        for layer in reversed(self._layers):  # nested ones come after those around them
            inner = {path: trees[layer.at + path] for path in layer.nested if layer.at + path in trees}
            trees[layer.at] = layer.write(inner)
        root, repository = self._root, self._root.repository
        self._check_prefix(trees[b""])
        commit = root.commit(trees[b""], COMMIT_MESSAGE, COMMIT_IDENTITY)
        self._store.take(commit, root.reading_environment)
        return Snapshot(
            commit=commit,
            tree=trees[b""],
            prefix=repository.prefix,
            head=repository.head,
            branch=repository.branch,
            remote=repository.remote,
            dirty=any(layer.dirty for layer in self._layers if layer is root or not self._is_foreign(layer.at))
            or self._submodule_moved(),
        )

    def _add(self, repository: Repository, at: bytes) -> IndexLayer:
        folder = self._folder / str(len(self._layers))
        self._sources.append(repository.objects)
        layer = IndexLayer(repository, folder=folder, objects=self._objects, sources=self._sources, at=at)
        self._layers.append(layer)
        return layer

    def _descend(self, layer: IndexLayer, path: bytes) -> None:
        at = layer.at + path
        place = layer.repository.top / os.fsdecode(path)
        try:
            inner = find_repository(place)
        except SnapshotError as error:
            raise SnapshotError(f"the nested repository {os.fsdecode(at)}: {error}", hint=error.hint) from None
        if inner.top.resolve() != place.resolve():
            raise SnapshotError(
                f"{os.fsdecode(at)} has a .git that is no repository", hint=f"repair or remove {place / '.git'}"
            )
        # One tree cannot hold ids of two lengths.
        if inner.sha256 != layer.repository.sha256:
            raise SnapshotError(
                f"{os.fsdecode(at)} is a repository with another kind of object id than the one around it",
                hint="name it in .gitignore",
            )
        if len(self._layers) >= NESTED_REPOSITORIES_LIMIT:
            raise SnapshotError(
                f"more than {NESTED_REPOSITORIES_LIMIT} nested repositories", hint="name their folder in .gitignore"
            )
        if path.rstrip(b"/") not in layer.links:
            self._foreign.add(at)
        self._add(inner, at)

    def _is_foreign(self, at: bytes) -> bool:
        return any(at.startswith(place) for place in self._foreign)

    def _submodule_moved(self) -> bool:
        """Whether a submodule is at another commit than the index around the submodule names."""
        heads = {layer.at: layer.repository.head for layer in self._layers}
        links = ((layer.at + path + b"/", oid) for layer in self._layers for path, oid in layer.links.items())
        return any(heads.get(at) != oid.decode() for at, oid in links if at in heads)

    def _check_prefix(self, tree: str) -> None:
        """Raises SnapshotError for a project folder ignored by the repository around: nothing of the folder would be
        shipped."""
        repository = self._root.repository
        if repository.prefix and not self._root.has(tree, repository.prefix):
            raise SnapshotError(
                f"the repository {repository.top} holds no file below {repository.prefix}: it ignores the folder",
                hint=f"`git check-ignore -v {repository.prefix}` says why; or run `git init` in the project folder",
            )


def untracked_limit_error(sizes: Sequence[tuple[int, bytes]], limit: int) -> SnapshotError:
    """The error with the ten largest untracked files."""
    largest = sorted(sizes, reverse=True)[:10]
    total = sum(size for size, _ in sizes)
    names = "".join(f"\n  {size / 1e6:10.1f} MB  {os.fsdecode(path)}" for size, path in largest)
    return SnapshotError(
        f"{total / 1e6:.0f} MB in {len(sizes)} files that git does not track: more than {limit / 1e6:.0f} MB "
        f"are not shipped. The largest:{names}",
        hint="name them in .gitignore, or `git add` what belongs to the code",
    )


def escape_glob(name: str) -> str:
    """A name as a glob without any other match."""
    return "".join("\\" + letter if letter in "*?[]\\" else letter for letter in name)
