"""One repository of the user's, packed through a copy of its index into a quarantine folder.

git runs with a GIT_DIR of dstack's own, whose configuration names no program, so no hook, filter, fsmonitor or textconv
of the user's or the repository's ever runs. New objects go to the quarantine; the user's index, objects and files are
only read. Commands that write objects do not even see the user's objects: git renews the time of an object found
instead of written.

The bytes of a file are hashed as in the work tree: converting git attributes (filter, text, ident, encodings) are
switched off, and entries of the copied index with converted content are hashed anew.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

from dstack.adapters.git.command import c_quote, call, environment, finish, start_piped
from dstack.adapters.git.repository import Repository
from dstack.errors import SnapshotError
from dstack.private_folder import make_folder, open_file, write_scratch
from dstack.wire import RAW_ATTRIBUTES

CONVERTING_ATTRIBUTES = ("filter", "ident", "working-tree-encoding")
LIST_UNTRACKED = ("ls-files", "-o", "-z", "--exclude-standard")
"""Lists the files neither tracked nor ignored."""
GITLINK_MODE = b"160000"
REGULAR_MODES = (b"100644", b"100755")
QUIET_TIME_S = 0.03
"""Seconds to leave between a file's last write and its hashing: within a tick of the kernel's clock (1-10 ms) two
writes have the same modification time, and the second could not be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEntry:
    """One entry of an index: the letter of `ls-files -v`, mode, object id, stage, path."""

    tag: bytes
    mode: bytes
    oid: bytes
    stage: bytes
    path: bytes


class IndexLayer:
    """One repository during packing: survey, then hash, then check, then graft and write.

    `at` is its place below the outermost repository, b"" or ending in b"/".
    """

    def __init__(
        self, repository: Repository, *, folder: Path, objects: Path, sources: Sequence[Path], at: bytes
    ) -> None:
        self.repository = repository
        self.at = at
        self.folder = folder
        self.untracked: tuple[bytes, ...] = ()
        self.tracked: tuple[IndexEntry, ...] = ()
        self.nested: tuple[bytes, ...] = ()
        self.links: dict[bytes, bytes] = {}
        """Submodules: path -> commit in the index."""
        self.dirty = False
        self.adapted = False
        self._top = os.fsencode(repository.top)
        self._sources = sources
        self._hashed: list[bytes] = []
        self._started = 0.0
        self._env = environment(
            home=folder,
            extra={
                "GIT_DIR": str(folder),
                "GIT_WORK_TREE": str(repository.top),
                "GIT_INDEX_FILE": str(folder / "index"),
                "GIT_OBJECT_DIRECTORY": str(objects),
            },
        )

    def survey(self) -> None:
        """Copy the index and find all tracked, untracked and nested paths; hashes nothing.

        Raises SnapshotError for a submodule without its content.
        """
        make_git_dir(self.folder, self.repository)
        index = self.folder / "index"
        if index.exists() and b"sdir" in index.read_bytes():
            # Folders stand for their files in a sparse index; only the user's objects say which.
            self._read("update-index", "--force-write-index", codes=(0, 129))
        self.tracked = tuple(parse_tracked(self._read("ls-files", "-s", "-v", "-z").stdout))
        left_out = [
            entry for entry in self.tracked if entry.mode == GITLINK_MODE or is_secret(entry.path, tracked=True)
        ]
        self.links = dict(self._submodules(entry for entry in left_out if entry.mode == GITLINK_MODE))
        if left_out:
            self._note_changes()
            self._index_info(removal_line(entry.path, entry.oid) for entry in left_out)
        self._look_for_untracked()
        unmarked = [entry for entry in self.tracked if entry.mode != GITLINK_MODE and self._is_marked(entry)]
        stale = {entry.path: entry for entry in (*unmarked, *self._converted_entries()) if entry.stage == b"0"}
        if stale:
            self._note_changes()
            self._index_info(reset_line(entry) for entry in stale.values() if not is_secret(entry.path, tracked=True))
        # Only now: the look at untracked and converted files above goes by the user's own attributes.
        write_scratch(str(self.folder / "info/attributes"), RAW_ATTRIBUTES.encode())

    def hash(self) -> None:
        """Bring the copied index up to the work tree; the new objects go to the quarantine."""
        changed, gone = self._changes()
        paths = [*changed, *self.untracked]
        zero = b"0" * (64 if self.repository.sha256 else 40)
        self._index_info(removal_line(path, zero) for path in gone)
        self._hashed = paths
        self._wait_for_quiet()
        self._started = time.time()
        if not paths:
            return
        arguments = ("update-index", "-z", "--add", "--remove", "--replace", "--stdin")
        done = self._git(*arguments, data=b"\0".join(paths) + b"\0")
        for line in done.stderr.decode("utf-8", "replace").splitlines():
            if line.startswith("Ignoring path "):
                raise SnapshotError(f"git cannot store {line[14:]}", hint="rename it, or name it in .gitignore")

    def changed_paths(self) -> tuple[bytes, ...]:
        """Paths changed since hashing: empty when all files were still the same at the end of hashing."""
        listing = start_piped(LIST_UNTRACKED, env=self._env, cwd=self.repository.top)
        changed, gone = self._changes()
        others, _ = parse_untracked(finish(listing, LIST_UNTRACKED[0]).stdout)
        recent = (path for path in self._hashed if self._is_recent(path))
        return tuple(self.at + path for path in dict.fromkeys((*changed, *gone, *others, *recent)))

    def write(self, nested: Mapping[bytes, str]) -> str:
        """The id of the tree, with the trees of nested repositories in their places."""
        own = self._git("write-tree", "--missing-ok").stdout.decode().strip()
        # An adapted index differs from the head without any change of the user's: the answer was noted before.
        if not self.adapted:
            self.dirty = self.dirty or own != self.repository.head_tree
        if not nested:
            return own
        for path, tree in nested.items():
            self._git("read-tree", f"--prefix={os.fsdecode(path)}", tree)
        return self._git("write-tree", "--missing-ok").stdout.decode().strip()

    def commit(self, tree: str, message: str, identity: Mapping[str, str]) -> str:
        """The id of a parentless commit of `tree`, written to the quarantine."""
        env = {**self._env, **identity}
        done = call(["commit-tree", tree], env=env, cwd=self.repository.top, data=message.encode())
        return done.stdout.decode().strip()

    def has(self, tree: str, prefix: str) -> bool:
        """Whether a tree has a folder `prefix` with any file inside."""
        return self._git("cat-file", "-e", f"{tree}:{prefix}", codes=(0, 1, 128)).returncode == 0

    @property
    def reading_environment(self) -> Mapping[str, str]:
        """The environment of git calls that see the user's objects too, and write none."""
        return {**self._env, "GIT_ALTERNATE_OBJECT_DIRECTORIES": ":".join(c_quote(path) for path in self._sources)}

    def sizes(self, *, all_files: bool) -> Iterator[tuple[int, bytes]]:
        """Size in bytes and path of each untracked file; with `all_files` of each tracked file too."""
        tracked = (entry.path for entry in self.tracked if entry.mode in REGULAR_MODES) if all_files else ()
        for path in (*self.untracked, *tracked):
            found = self._stat(path)
            if found is not None and stat.S_ISREG(found.st_mode):
                yield found.st_size, self.at + path

    def _git(self, *arguments: str, data: bytes = b"", codes: Iterable[int] = (0,)) -> CompletedProcess[bytes]:
        return call(arguments, env=self._env, cwd=self.repository.top, data=data, codes=codes)

    def _read(self, *arguments: str, data: bytes = b"", codes: Iterable[int] = (0,)) -> CompletedProcess[bytes]:
        return call(arguments, env=self.reading_environment, cwd=self.repository.top, data=data, codes=codes)

    def _stat(self, path: bytes) -> os.stat_result | None:
        try:
            return os.lstat(self._top + b"/" + path)
        except OSError:
            return None

    def _index_info(self, lines: Iterable[bytes]) -> None:
        data = b"".join(lines)
        if data:
            self._git("update-index", "-z", "--index-info", data=data)

    def _submodules(self, entries: Iterable[IndexEntry]) -> Iterator[tuple[bytes, bytes]]:
        """The submodules with their content present; raises SnapshotError for an empty submodule."""
        for entry in entries:
            place = self._top + b"/" + entry.path
            if not os.path.isdir(place):
                continue  # the user took it away, and so does the snapshot
            if os.path.lexists(place + b"/.git"):
                yield entry.path, entry.oid
            elif not os.listdir(place) and entry.tag not in b"Ss":
                name = os.fsdecode(entry.path)
                raise SnapshotError(
                    f"the submodule {os.fsdecode(self.at) + name} is empty: its files were never checked out",
                    hint=f"git submodule update --init -- {name}",
                )

    def _note_changes(self) -> None:
        """Record whether anything differs from head, before the copied index is adapted."""
        if self.adapted:
            return
        self.adapted = True
        work = self._read("diff-files", "--quiet", "--ignore-submodules=all", codes=(0, 1)).returncode
        head = self.repository.head_tree
        staged = 1 if head is None else self._read("diff-index", "--cached", "--quiet", head, codes=(0, 1)).returncode
        self.dirty = bool(work or staged)

    def _look_for_untracked(self) -> None:
        self.untracked, nested = parse_untracked(self._git(*LIST_UNTRACKED).stdout)
        # Without its gitlink git lists a submodule as one more nested repository.
        self.nested = tuple(sorted({*nested, *(path + b"/" for path in self.links)}))
        self.dirty = self.dirty or bool(self.untracked) or len(self.nested) > len(self.links)

    def _is_marked(self, entry: IndexEntry) -> bool:
        """Whether a mark of the index hides the file: assume-unchanged, or skip-worktree on an existing file."""
        hidden = entry.tag in b"Ss" and self._stat(entry.path) is not None
        return hidden or (entry.tag.islower() and entry.tag != b"s")

    def _converted_entries(self) -> Iterator[IndexEntry]:
        """Entries whose content in the index may be something else than the bytes of the file."""
        marks = (self.repository.attributes, self.repository.user_attributes, Path("/etc/gitattributes"))
        paths = (*(entry.path for entry in self.tracked), *self.untracked)
        named = any(path.rsplit(b"/", 1)[-1] == b".gitattributes" for path in paths)
        if not (named or self.repository.converts or any(mark.is_file() for mark in marks)):
            return
        files = [entry for entry in self.tracked if entry.mode in REGULAR_MODES and entry.stage == b"0"]
        filtered = self._filtered(files)
        for entry, size in zip(files, self._blob_sizes(files), strict=True):
            found = self._stat(entry.path)
            # Line ends are converted by adding or dropping bytes, so equal sizes mean equal bytes.
            if entry.path in filtered or (found is not None and found.st_size != size):
                yield entry

    def _filtered(self, files: Sequence[IndexEntry]) -> set[bytes]:
        """Paths with an attribute whose conversion may keep the size."""
        env = {name: value for name, value in self._env.items() if name != "GIT_ATTR_NOSYSTEM"}
        arguments = ["check-attr", "-z", "--stdin", *CONVERTING_ATTRIBUTES]
        data = b"".join(entry.path + b"\0" for entry in files)
        fields = call(arguments, env=env, cwd=self.repository.top, data=data).stdout.split(b"\0")[:-1]
        answers = zip(fields[0::3], fields[2::3], strict=True)
        return {path for path, value in answers if value not in (b"unspecified", b"unset")}

    def _blob_sizes(self, files: Sequence[IndexEntry]) -> list[int]:
        data = b"".join(entry.oid + b"\n" for entry in files)
        lines = self._read("cat-file", "--batch-check=%(objectsize)", data=data).stdout.splitlines()
        return [int(line) if line.isdigit() else -1 for line in lines]

    def _changes(self) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """Tracked paths to hash again, and removed tracked paths."""
        arguments = ("diff-files", "--name-status", "-z", "--no-renames", "--no-ext-diff", "--ignore-submodules=all")
        fields = self._git(*arguments).stdout.split(b"\0")[:-1]
        states: dict[bytes, bytes] = {}
        for state, path in zip(fields[0::2], fields[1::2], strict=True):
            states[path] = b"D" if state == b"U" and self._stat(path) is None else state
        changed = tuple(path for path, state in states.items() if state != b"D")
        return changed, tuple(path for path, state in states.items() if state == b"D")

    def _wait_for_quiet(self) -> None:
        """Let the clock pass the last write, so that a later write has another modification time."""
        newest = max((found.st_mtime for path in self._hashed if (found := self._stat(path))), default=0.0)
        now = time.time()
        if newest < now + 1:  # times far in the future are another machine's clock, and say nothing
            time.sleep(max(0.0, min(newest + QUIET_TIME_S - now, 2 * QUIET_TIME_S)))

    def _is_recent(self, path: bytes) -> bool:
        """Whether a hashed file was written so late that an earlier write may have the same time."""
        found = self._stat(path)
        return found is not None and self._started - QUIET_TIME_S / 2 < found.st_mtime < time.time() + 1


def make_git_dir(folder: Path, repository: Repository) -> None:
    """Make a GIT_DIR in `folder` with the rules of the user's repository for its set of files."""
    for name in ("refs", "info"):
        make_folder(str(folder / name))
    write_scratch(str(folder / "HEAD"), b"ref: refs/heads/none\n")
    version = "1\n[extensions]\n\tobjectFormat = sha256" if repository.sha256 else "0"
    lines = [f"[core]\n\trepositoryFormatVersion = {version}\n[core]\n\tbare = false\n\tcompression = 1\n"]
    lines.append(f"\tattributesFile = {c_quote(repository.user_attributes)}\n")
    lines += [f"\t{name.removeprefix('core.')} = {value}\n" for name, value in repository.settings.items()]
    write_scratch(str(folder / "config"), os.fsencode("".join(lines)))
    excludes = [path.read_bytes() for path in repository.excludes if path.is_file()]
    write_scratch(str(folder / "info/exclude"), b"\n".join(excludes))
    attributes = repository.attributes
    write_scratch(str(folder / "info/attributes"), attributes.read_bytes() if attributes.is_file() else b"")
    for shared in repository.index.parent.glob("sharedindex.*"):
        copy_index(shared, folder / shared.name)
    if repository.index.exists():
        copy_index(repository.index, folder / "index")


def copy_index(source: Path, target: Path) -> None:
    """Copy an index with its times: the stat data inside stays valid. The copy's mode is private."""
    found = source.stat()
    with source.open("rb") as stream, os.fdopen(open_file(str(target), os.O_WRONLY | os.O_TRUNC), "wb") as file:
        shutil.copyfileobj(stream, file)
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def parse_tracked(listing: bytes) -> Iterator[IndexEntry]:
    """The entries of `ls-files -s -v -z`."""
    for line in listing.split(b"\0")[:-1]:
        front, _, path = line.partition(b"\t")
        tag, mode, oid, stage = front.split(b" ")
        yield IndexEntry(tag=tag, mode=mode, oid=oid, stage=stage, path=path)


def parse_untracked(listing: bytes) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """The output of LIST_UNTRACKED as files, and folders with repositories of their own."""
    kept = [path for path in listing.split(b"\0")[:-1] if not is_secret(path, tracked=False)]
    return (
        tuple(path for path in kept if not path.endswith(b"/")),
        tuple(path for path in kept if path.endswith(b"/")),
    )


def is_secret(path: bytes, *, tracked: bool) -> bool:
    """Whether a path is a source of secrets: `.env` at any depth, and `.env.*` unless tracked by git."""
    parts = path.rstrip(b"/").split(b"/")
    return b".env" in parts or (not tracked and any(part.startswith(b".env.") for part in parts))


def removal_line(path: bytes, oid: bytes) -> bytes:
    """The line of `update-index --index-info` to take a path out; `oid` has the length of an object id."""
    return b"0 " + b"0" * len(oid) + b"\t" + path + b"\0"


def reset_line(entry: IndexEntry) -> bytes:
    """The line of `update-index --index-info` to keep an entry without its marks and stat data."""
    return entry.mode + b" " + entry.oid + b"\t" + entry.path + b"\0"
