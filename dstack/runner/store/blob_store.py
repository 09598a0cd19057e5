"""The host store: content by sha256 under `<root>/store/<2 hex>/<62 hex>`, and inputs laid from the store into work
trees.

A blob appears by link or rename when the bytes were verified. A blob is not flushed to disk: a blob cut by a power
failure is found by the hash at the next use, thrown away, and sent again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from dstack.runner.base import disk_room, safe_paths
from dstack.runner.store import artifacts
from dstack.wire import EMPTY_SHA256, Refusal, is_sha256

LIST_KIND = "entries"
"""Kind of an entry for a whole list of entries, one JSON object a line, in the store under `sha256`."""

_STALE = 2 * 86_400.0
_REMEMBERED = 100_000
_FRESH = 3600.0
"""Seconds after which the use of a blob is worth noting again."""
_AGAIN = "the damaged copy was removed; run it again and it is sent anew"


class Verified:
    """Blobs verified by this process. An untouched blob need not be read again for a verification."""

    def __init__(self) -> None:
        self._seen: Dict[str, Tuple[int, ...]] = {}

    def note(self, digest: str, identity: Tuple[int, ...]) -> None:
        """Note that the file with this identity, from before the reading, has the right bytes."""
        if len(self._seen) >= _REMEMBERED:
            # Forgetting costs a reading of each blob, and never a wrong answer.
            self._seen.clear()
        self._seen[digest] = identity

    def knows(self, digest: str, identity: Tuple[int, ...]) -> bool:
        return self._seen.get(digest) == identity


def identity_of(fd: int) -> Tuple[int, ...]:
    """The identity of a file, different after a replacement or a write: the kernel sets the time of the last change
    itself."""
    state = os.fstat(fd)
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def missing(root: str, digests: Sequence[object]) -> List[str]:
    """The sha256 of `digests` that the store lacks, in the given order; raises Refusal("hash") for a malformed sha256.

    Present blobs stay for hours (`eviction.KEEP_AFTER_USE_S`), also on a full disk.
    """
    return [digest for digest in map(check_digest, digests) if not has(root, digest)]


def stage(root: str, project_folder: str, entries: Sequence[object], verified: Optional[Verified] = None) -> None:
    """Lay inputs into a work tree, under their own paths, with their modes.

    A file or link of the snapshot is replaced in the place of an input or of an input's folder; nothing is ever written
    through a symbolic link. Files are copies of their own (reflinks on a file system with reflinks), verified on the
    way unless `verified` knows the blob. Folders stay open to their owner in spite of the recorded mode. Raises
    Refusal("inputs") for an unsafe entry, a folder in the way, or a disk that refuses; Refusal("hash") for a missing
    blob or a damaged blob, and a damaged blob is removed.
    """
    known = verified or Verified()
    plan = [_entry(item) for item in _expanded(root, entries)]
    _check_plan(plan)
    top = safe_paths.open_top(project_folder)
    try:
        for item in plan:
            try:
                _lay(root, top, item, known)
            except OSError as error:
                message = "input %s cannot be laid: %s" % (safe_paths.shown_path(item.path), error.strerror)
                raise disk_room.refusal(error, "inputs", message, "look at the snapshot's files there") from None
    finally:
        os.close(top)


class _Entry(NamedTuple):
    parts: List[bytes]
    kind: str
    mode: int
    size: int
    sha256: str
    target: bytes

    @property
    def path(self) -> bytes:
        return b"/".join(self.parts)


def _expanded(root: str, entries: Sequence[object]) -> Iterator[object]:
    """The entries; a list of entries in the store is read and verified."""
    for item in entries:
        if not isinstance(item, dict) or item.get("kind") != LIST_KIND:
            yield item
            continue
        digest = check_digest(item.get("sha256"))
        fd = _open_blob(root, digest)
        try:
            size = os.fstat(fd).st_size
            if size > artifacts.MAX_MANIFEST_BYTES:
                raise Refusal("inputs", "the list of inputs is %d bytes long" % size)
            body = b"".join(safe_paths.read_pieces(fd, size))
        finally:
            os.close(fd)
        if hashlib.sha256(body).hexdigest() != digest:
            raise _damaged(root, digest)
        for line in body.splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                raise Refusal("inputs", "the list of inputs is not JSON") from None


def _entry(item: object) -> _Entry:
    if not isinstance(item, dict):
        raise Refusal("inputs", "an input is no JSON object")
    parts = safe_paths.split_path(item.get("path"), "inputs")
    kind, mode, size = item.get("kind"), item.get("mode"), item.get("size", 0)
    if kind not in ("file", "link", "folder") or not is_number(mode, 0o777) or not is_number(size, 1 << 53):
        raise Refusal(
            "inputs", "input %s has no kind, mode or size that dstack knows" % safe_paths.shown_path(item["path"])
        )
    target = b""
    if kind == "link":
        text = item.get("target")
        try:
            target = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else b""
        except UnicodeEncodeError:
            target = b""
        if not safe_paths.link_is_inside(parts, target):
            raise Refusal(
                "inputs", "input %s is a link that may lead out of the project" % safe_paths.shown_path(item["path"])
            )
    digest = check_digest(item.get("sha256")) if kind == "file" else ""
    return _Entry(parts, str(kind), int(mode or 0), int(size), digest, target)


def is_number(value: object, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit


def _check_plan(plan: Sequence[_Entry]) -> None:
    """Every path once, and nothing below a file or a link."""
    kinds = {item.path: item.kind for item in plan}
    if len(kinds) != len(plan):
        raise Refusal("inputs", "the inputs name a path twice")
    for item in plan:
        for count in range(1, len(item.parts)):
            if kinds.get(b"/".join(item.parts[:count]), "folder") != "folder":
                raise Refusal(
                    "inputs", "input %s lies below another that is no folder" % safe_paths.shown_path(item.path)
                )


def _lay(root: str, top: int, item: _Entry, verified: Verified) -> None:
    if item.kind == "folder":
        fd = safe_paths.make_folder(top, item.parts)
        try:
            os.fchmod(fd, item.mode | 0o700)
        finally:
            os.close(fd)
        return
    folder = safe_paths.make_folder(top, item.parts[:-1])
    try:
        _refuse_folder(folder, item)
        temporary = temporary_name()
        try:
            if item.kind == "link":
                os.symlink(item.target, temporary, dir_fd=folder)
            else:
                _lay_file(root, folder, temporary, item, verified)
            # The last step: no reader of the work tree ever sees a part of an input.
            os.rename(temporary, item.parts[-1], src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            _unlink(temporary, folder)
            raise
    finally:
        os.close(folder)


def _refuse_folder(folder: int, item: _Entry) -> None:
    try:
        state = os.stat(item.parts[-1], dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(state.st_mode):
        message = "input %s is a %s, and the snapshot has a folder there" % (
            safe_paths.shown_path(item.path),
            item.kind,
        )
        raise Refusal("inputs", message, "rename one of the two")


def _lay_file(root: str, folder: int, name: str, item: _Entry, verified: Verified) -> None:
    source = -1
    fd = os.open(name, safe_paths.NEW_FILE_FLAGS, 0o600, dir_fd=folder)
    try:
        if item.sha256 != EMPTY_SHA256:
            source = _open_blob(root, item.sha256)
        if source >= 0:
            identity = identity_of(source)
            if not copy_verified(source, fd, item.sha256, item.size, known=verified.knows(item.sha256, identity)):
                raise _damaged(root, item.sha256)
            verified.note(item.sha256, identity)
        if source < 0 and item.size:
            raise Refusal("inputs", "input %s is empty and has a size" % safe_paths.shown_path(item.path))
        os.fchmod(fd, item.mode)
    finally:
        os.close(fd)
        if source >= 0:
            os.close(source)


def copy_verified(source: int, target: int, digest: str, size: int, *, known: bool = False) -> bool:
    """Clone or copy a whole file; whether `target` now has the digest and the size.

    The bytes of a `known` source are not read for a verification.
    """
    if safe_paths.clone(source, target):
        # The clone is hashed and not the source: the bytes for the job are the bytes to prove.
        return known or safe_paths.hash_file(target) == (digest, size)
    if known and safe_paths.copy_range(source, target, size):
        return True
    seen = hashlib.sha256()
    count = 0
    # A byte more than announced, to find a blob that is too long.
    for piece in safe_paths.read_pieces(source, size + 1):
        seen.update(piece)
        count += len(piece)
        safe_paths.write_all(target, piece)
    return count == size and seen.hexdigest() == digest


def remove_stale_files(root: str, *, now: float) -> int:
    """Remove temporary files without a write for two days; returns their number. `now`: seconds since the epoch."""
    store = os.path.join(root, "store")
    removed = 0
    try:
        names = os.listdir(store)
    except FileNotFoundError:
        return 0
    for name in names:
        path = os.path.join(store, name)
        try:
            if name.startswith(".tmp-") and now - os.lstat(path).st_mtime > _STALE:
                os.unlink(path)
                removed += 1
        except FileNotFoundError:
            continue
    return removed


def check_digest(digest: object) -> str:
    if not isinstance(digest, str) or not is_sha256(digest):
        raise Refusal("hash", "not a sha256: %.80r" % (digest,))
    return digest


def blob_path(root: str, digest: str) -> str:
    return os.path.join(root, "store", digest[:2], digest[2:])


def has(root: str, digest: str) -> bool:
    """Whether the store has the blob; the question counts as a use."""
    path = blob_path(root, digest)
    try:
        state = os.lstat(path)
        if not stat.S_ISREG(state.st_mode):
            return False
        # At most once an hour: a write for every question would wear the disk out for nothing.
        if abs(time.time() - state.st_mtime) > _FRESH:
            os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _open_blob(root: str, digest: str) -> int:
    try:
        return os.open(blob_path(root, digest), safe_paths.FILE_FLAGS)
    except OSError:
        raise Refusal("hash", "the store of this host lacks %s" % digest, "run it again and it is sent") from None


def _damaged(root: str, digest: str) -> Refusal:
    with contextlib.suppress(OSError):
        os.unlink(blob_path(root, digest))
    return Refusal("hash", "the store of this host held a damaged copy of %s" % digest, _AGAIN)


def temporary_name() -> str:
    return ".tmp-%d-%d-%s" % (os.getpid(), time.monotonic_ns(), os.urandom(6).hex())


def _unlink(name: str, folder: int) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=folder)
