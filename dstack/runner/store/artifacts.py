"""The artifacts of an ended job: their manifest, and their bytes in packs.

Never follows a symbolic link. Sockets, pipes, devices and everything of git's own (`.git`) are left out, and named; a
link out of the project folder is refused, because no other host could follow the link.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple, Type, TypeVar

from dstack.runner.base import safe_paths
from dstack.runner.base.spool import read_message, sync_folder, write_durably
from dstack.runner.store import pieces
from dstack.wire import Refusal
from dstack.wire.job_messages import ExitRecord, ManifestAnswer, ManifestSummary
from dstack.wire.message_form import Message

M = TypeVar("M", bound=Message)
MAX_SHARED_FILE_BYTES = 4 << 20
"""Smaller files share packs. Bytes."""
MAX_SHARED_PACK_BYTES = 16 << 20
"""A shared pack takes no further file that would bring the pack past as many bytes."""
MAX_ENTRIES = 200_000
MAX_MANIFEST_BYTES = 60 << 20
"""Bytes; coordinators read a manifest as one object of at most 64 MiB."""

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_TOO_MANY = "let the job put them into one archive, or name fewer paths under artifacts:"
_CHANGED = "something still writes there; `dstack run --rerun` makes the artifacts again"


class ArtifactPath(NamedTuple):
    """A path of a job's artifacts: `size`, `sha256` and, for a large file, `pieces`; `target` of a link."""

    path: bytes
    kind: str
    mode: int
    size: int = 0
    sha256: str = ""
    target: bytes = b""
    pieces: Tuple[str, ...] = ()


def missing(project_folder: str, paths: Sequence[str]) -> List[str]:
    """The named artifact paths that do not exist, as written.

    A link exists, whether or not the link dangles; a path through a link does not. Raises Refusal("artifact") for a
    path that leaves the project folder.
    """
    top = safe_paths.open_top(project_folder)
    try:
        return [path for path in paths if _look(top, safe_paths.artifact_parts(path)) is None]
    finally:
        os.close(top)


def write_manifest(root: str, nonce_folder: str, project_folder: str, paths: Sequence[str]) -> ManifestAnswer:
    """Hash the artifacts of an ended job into `<nonce_folder>/manifest.jsonl`, unless the file exists already.

    A JSON object a line, ascending by the bytes of `path`: `path, kind, mode`, for files `size, sha256, pack, offset`
    (no pack when empty; `piece, pieces` instead when large), for links `target`. The same artifacts give the same
    bytes. The answer is `partial` unless the exit report says that the job succeeded.

    Paths that cannot be recorded (a link out of the folder, a file that cannot be read) are skipped for a job without
    success; else Refusal("artifact") names the path. Raises Refusal("changed") when a file changes during the reading.
    """
    del root  # the same first parameter as the rest of the runner
    summary = _read_summary(nonce_folder)
    if summary is None:
        walk = _Walk(project_folder, strict=_succeeded(nonce_folder))
        absent = walk.run(paths)
        found = sorted(walk.found, key=lambda item: item.path)
        summary = ManifestSummary(
            missing=tuple(absent),
            skipped=tuple(sorted(walk.skipped)),
            entries=len(found),
            bytes=sum(item.size for item in found),
        )
        body = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in _placed(found)).encode("ascii")
        if len(body) > MAX_MANIFEST_BYTES:
            raise Refusal("artifact", "the list of artifacts would be %d bytes long" % len(body), _TOO_MANY)
        # The summary first: where the manifest stands, its summary stands.
        _replace(os.path.join(nonce_folder, "manifest.json"), json.dumps(summary.to_json()).encode("ascii"))
        _replace(os.path.join(nonce_folder, "manifest.jsonl"), body)
    partial = bool(summary.missing) or not _succeeded(nonce_folder)
    return ManifestAnswer(
        missing=summary.missing,
        skipped=summary.skipped,
        entries=summary.entries,
        bytes=summary.bytes,
        partial=partial,
    )


def entries(nonce_folder: str) -> Iterator[Dict[str, Any]]:
    """The entries of a written manifest; raises Refusal("manifest") without a manifest."""
    for line in _lines(nonce_folder):
        yield json.loads(line)


def read_pack(root: str, nonce_folder: str, project_folder: str, pack: str) -> Iterator[bytes]:
    """The bytes of a pack in pieces of at most 256 KiB.

    Verified during the reading; Refusal("changed") is raised when a file differs from the manifest (the pieces given
    before are then worth nothing), Refusal("manifest") for a pack that the manifest does not name.
    """
    del root
    members = _members(nonce_folder, pack)
    top = safe_paths.open_top(project_folder)
    try:
        for entry in members:
            for piece in _read_member(top, entry):
                yield piece
    finally:
        os.close(top)


def _members(nonce_folder: str, pack: str) -> List[Dict[str, Any]]:
    """The first entry at each place of the pack, in order; others share the bytes of one."""
    places: Dict[int, Dict[str, Any]] = {}
    needle = pack.encode("utf-8", "surrogateescape")
    for line in _lines(nonce_folder):
        # A search in the bytes: parsing 200,000 lines for each pack would take minutes.
        if needle and needle in line:
            entry = json.loads(line)
            if entry.get("pack") == pack:
                places.setdefault(entry["offset"], entry)
        elif b'"pieces":' in line:
            found = pieces.find(json.loads(line), pack)
            if found:
                return found
    if not places:
        raise Refusal(
            "manifest", "the manifest names no pack %s" % safe_paths.shown_path(pack), "ask for `manifest` first"
        )
    return [places[offset] for offset in sorted(places)]


def _read_member(top: int, entry: Dict[str, Any]) -> Iterator[bytes]:
    parts = safe_paths.split_path(entry["path"], "changed")
    fd = _open_member(top, parts)
    try:
        digest = hashlib.sha256()
        size = 0
        for piece in safe_paths.read_pieces(fd, entry["size"], entry.get("start", 0)):
            digest.update(piece)
            size += len(piece)
            yield piece
        longer = os.fstat(fd).st_size != entry.get("whole", entry["size"])
    finally:
        os.close(fd)
    if size != entry["size"] or longer or digest.hexdigest() != entry["sha256"]:
        raise Refusal(
            "changed", "artifact %s changed after the job had ended" % safe_paths.shown_path(entry["path"]), _CHANGED
        )


def _open_member(top: int, parts: List[bytes]) -> int:
    """The descriptor of a file of the manifest; raises Refusal("changed") for any other entry in its place."""
    shown = safe_paths.shown_path(b"/".join(parts))
    try:
        folder = safe_paths.open_folder(top, parts[:-1])
        try:
            state = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
            fd = os.open(parts[-1], safe_paths.FILE_FLAGS, dir_fd=folder) if stat.S_ISREG(state.st_mode) else -1
        finally:
            os.close(folder)
    except OSError as error:
        message = "artifact %s cannot be read any more: %s" % (shown, error.strerror)
        raise Refusal("changed", message, _CHANGED) from None
    if fd >= 0:
        # Between the two calls another one may have come: a pipe has no places to read from.
        state = os.fstat(fd)
        if stat.S_ISREG(state.st_mode):
            return fd
        os.close(fd)
    message = "artifact %s changed into %s while it was stored" % (shown, safe_paths.kind_in_words(state.st_mode))
    raise Refusal("changed", message, _CHANGED)


class _Walk:
    """A walk over the named paths, and the finds. `strict`: a path that cannot be recorded is an error, and not just
    left out."""

    def __init__(self, project_folder: str, *, strict: bool) -> None:
        self._top = project_folder
        self._strict = strict
        self._seen: Set[bytes] = set()
        self.found: List[ArtifactPath] = []
        self.skipped: List[str] = []

    def run(self, paths: Sequence[str]) -> List[str]:
        """Walk; returns the paths that do not exist."""
        absent = []
        top = safe_paths.open_top(self._top)
        try:
            for path in paths:
                parts = safe_paths.artifact_parts(path)
                if not parts:
                    self._folder(top, [])
                elif not self._named(top, parts):
                    absent.append(path)
        finally:
            os.close(top)
        return absent

    def _named(self, top: int, parts: List[bytes]) -> bool:
        try:
            parent = safe_paths.open_folder(top, parts[:-1])
        except OSError as error:
            if error.errno in _ABSENT:
                return False
            raise _unreadable(parts, error) from None
        try:
            return self._one(parent, parts)
        finally:
            os.close(parent)

    def _one(self, parent: int, parts: List[bytes]) -> bool:
        """Record the entry at `parts` in the folder `parent`; False without an entry."""
        path = b"/".join(parts)
        if path in self._seen:
            return True
        try:
            state = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(state.st_mode):
                self._add(ArtifactPath(path, "folder", state.st_mode & 0o777))
                self._down(parent, parts)
            elif stat.S_ISREG(state.st_mode):
                self._file(parent, parts)
            elif stat.S_ISLNK(state.st_mode):
                self._link(os.readlink(parts[-1], dir_fd=parent), parts)
            else:
                self.skipped.append(safe_paths.path_text(path))
        except FileNotFoundError:
            return False
        except OSError as error:
            self._leave_out(path, _unreadable(parts, error))
        return True

    def _down(self, parent: int, parts: List[bytes]) -> None:
        fd = os.open(parts[-1], safe_paths.FOLDER_FLAGS, dir_fd=parent)
        try:
            self._folder(fd, parts)
        finally:
            os.close(fd)

    def _folder(self, fd: int, parts: List[bytes]) -> None:
        if len(parts) >= safe_paths.MAX_DEPTH - 1:
            raise Refusal("artifact", "%s lies too deep" % safe_paths.shown_path(b"/".join(parts)))
        for name in sorted(os.fsencode(name) for name in os.listdir(fd)):
            inner = [*parts, name]
            if safe_paths.is_git(name) or (not parts and name.lower() == b".dstack"):
                self.skipped.append(safe_paths.path_text(b"/".join(inner)))
            else:
                self._one(fd, inner)

    def _file(self, parent: int, parts: List[bytes]) -> None:
        fd = os.open(parts[-1], safe_paths.FILE_FLAGS, dir_fd=parent)
        try:
            # Size and time on both sides of the reading: a job's stray process may still write.
            before = os.fstat(fd)
            found = pieces.digests_of(fd)
            after = os.fstat(fd)
        finally:
            os.close(fd)
        path = b"/".join(parts)
        if found.size != before.st_size or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise Refusal("changed", "artifact %s changed while it was read" % safe_paths.shown_path(path), _CHANGED)
        self._add(ArtifactPath(path, "file", before.st_mode & 0o777, found.size, found.sha256, pieces=found.pieces))

    def _link(self, target: bytes, parts: List[bytes]) -> None:
        path = b"/".join(parts)
        if not safe_paths.link_is_inside(parts, target):
            message = "artifact %s is a symbolic link to %s, which may lead out of the project folder"
            hint = "let the job copy the file, or link to it by a plain relative path inside the project folder"
            self._leave_out(
                path, Refusal("artifact", message % (safe_paths.shown_path(path), safe_paths.shown_path(target)), hint)
            )
            return
        self._add(ArtifactPath(path, "link", 0o777, target=target))

    def _leave_out(self, path: bytes, refusal: Refusal) -> None:
        if self._strict:
            raise refusal from None
        self.skipped.append(safe_paths.path_text(path))

    def _add(self, item: ArtifactPath) -> None:
        if len(item.path) > safe_paths.MAX_PATH:
            raise Refusal("artifact", "the path %s is too long" % safe_paths.shown_path(item.path))
        if len(self.found) >= MAX_ENTRIES:
            raise Refusal("artifact", "the artifacts are more than %d files and folders" % MAX_ENTRIES, _TOO_MANY)
        self._seen.add(item.path)
        self.found.append(item)


def _placed(found: Sequence[ArtifactPath]) -> Iterator[Dict[str, Any]]:
    """The entries with their places: small files together, in order; equal content is stored once."""
    places: Dict[str, "tuple[str, int]"] = {}
    batch: List[ArtifactPath] = []
    filled = 0
    # None closes the last batch.
    for item in [*found, None]:
        if item is None or (0 < item.size < MAX_SHARED_FILE_BYTES and filled + item.size > MAX_SHARED_PACK_BYTES):
            _close(batch, places)
            batch, filled = [], 0
        if item is None or not item.size or item.pieces or item.sha256 in places:
            continue
        if item.size >= MAX_SHARED_FILE_BYTES:
            _close([item], places)
            continue
        batch.append(item)
        filled += item.size
        places[item.sha256] = ("", 0)  # a later file with the same content needs no place of its own
    for item in found:
        entry: Dict[str, Any] = {"path": safe_paths.path_text(item.path), "kind": item.kind, "mode": item.mode}
        if item.pieces:
            entry.update(size=item.size, sha256=item.sha256, piece=pieces.LARGE_PIECE_BYTES, pieces=item.pieces)
        elif item.kind == "file":
            pack, offset = places[item.sha256] if item.size else ("", 0)
            entry.update(size=item.size, sha256=item.sha256, pack=pack, offset=offset)
        elif item.kind == "link":
            entry["target"] = safe_paths.path_text(item.target)
        yield entry


def _close(batch: Sequence[ArtifactPath], places: "Dict[str, tuple[str, int]]") -> None:
    """Name a pack by its members."""
    name = pieces.pack_name([(item.sha256, item.size) for item in batch])
    offset = 0
    for item in batch:
        places[item.sha256] = (name, offset)
        offset += item.size


def _look(top: int, parts: List[bytes]) -> Optional[os.stat_result]:
    """The entry at `parts`, without following links; None without an entry."""
    try:
        if not parts:
            return os.fstat(top)
        folder = safe_paths.open_folder(top, parts[:-1])
        try:
            return os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise _unreadable(parts, error) from None


def _unreadable(parts: Sequence[bytes], error: OSError) -> Refusal:
    message = "artifact %s cannot be read: %s" % (safe_paths.shown_path(b"/".join(parts)), error.strerror)
    return Refusal("artifact", message, "its owner and mode must let the user of the job read it")


def _succeeded(nonce_folder: str) -> bool:
    """Whether the exit report says success."""
    report = _read(ExitRecord, os.path.join(nonce_folder, "exit.json"))
    return report is not None and report.succeeded()


def _read_summary(nonce_folder: str) -> Optional[ManifestSummary]:
    if not os.path.exists(os.path.join(nonce_folder, "manifest.jsonl")):
        return None
    return _read(ManifestSummary, os.path.join(nonce_folder, "manifest.json"))


def _read(cls: Type[M], path: str) -> Optional[M]:
    """A message in a file of the spool; None where the file is absent or damaged."""
    try:
        return read_message(cls, path)
    except Refusal:
        return None


def _lines(nonce_folder: str) -> Iterator[bytes]:
    try:
        with open(os.path.join(nonce_folder, "manifest.jsonl"), "rb") as file:
            for line in file:
                yield line
    except FileNotFoundError:
        raise Refusal("manifest", "this attempt has no manifest yet", "ask for `manifest` first") from None


def _replace(path: str, body: bytes) -> None:
    """Write whole and durably; several writers may do so at once."""
    temporary = "%s.%d.%d.tmp" % (path, os.getpid(), time.monotonic_ns())
    write_durably(temporary, body)
    os.rename(temporary, path)
    sync_folder(os.path.dirname(path))
