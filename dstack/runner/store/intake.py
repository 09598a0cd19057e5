"""Bytes on their way into the host store: from a coordinator, and from a job on this host.

A blob appears in one step, after the verification of the bytes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from typing import Any, Dict, Iterable, Iterator, Optional, Sequence, Tuple, Union

from dstack.private_folder import make_folder
from dstack.runner.base import disk_room, safe_paths
from dstack.runner.store import artifacts, eviction
from dstack.runner.store.blob_store import (
    Verified,
    blob_path,
    check_digest,
    copy_verified,
    has,
    identity_of,
    temporary_name,
)
from dstack.wire import Refusal


def receive(
    root: str, blobs: Sequence[Tuple[str, int]], chunks: Iterable[bytes], verified: Optional[Verified] = None
) -> None:
    """Bring blobs, pairs of sha256 and size, into the store; `chunks` are the bytes, one blob after the other.

    The longest unused blobs make room. Any number of receivers of the same blob may run at once. Raises Refusal("hash")
    at the first blob with other bytes than its sha256 and size say, Refusal("store") for a failed write; earlier blobs
    are kept, and nothing is left of the failed blob and the later blobs.
    """
    wanted = [(check_digest(digest), size) for digest, size in blobs]
    source = _Source(chunks)
    eviction.make_room(root, coming=sum(size for _, size in wanted))
    for digest, size in wanted:
        with _Incoming(root, digest) as incoming:
            incoming.create()
            seen = hashlib.sha256()
            count = 0
            for piece in source.take(size):
                count += len(piece)
                seen.update(piece)
                incoming.write(piece)
            if count != size or seen.hexdigest() != digest:
                message = "blob %s arrived damaged (%d of %d bytes)" % (digest, count, size)
                raise Refusal("hash", message, "send it again")
            incoming.keep()
            if verified is not None:
                verified.note(digest, identity_of(incoming.fd))
    # A stream with a rest is another stream than the list announced.
    for _ in source.take(1):
        raise Refusal("hash", "more bytes arrived than the %d blobs have" % len(wanted), "send them again")


class _Source:
    """A stream of bytes, taken in parts."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def take(self, size: int) -> Iterator[memoryview]:
        """The next `size` bytes in pieces, fewer at the end of the stream."""
        while size:
            if not self._rest:
                chunk = next(self._chunks, None)
                if chunk is None:
                    return
                self._rest = memoryview(chunk)
            piece, self._rest = self._rest[:size], self._rest[size:]
            size -= len(piece)
            yield piece


def adopt(root: str, nonce_folder: str, project_folder: str) -> Dict[str, int]:
    """Bring the files of an ended job's manifest into the store, for the next job on this host.

    Files are moved where no other process can reach the file, or else copied: call `adopt` right before the removal of
    the work tree.

    Returns `{"files", "bytes"}` of the adopted files. A file that differs from the manifest is passed over, and a full
    disk ends the adoption: the store is only ever a short cut.
    """
    files = total = 0
    top = safe_paths.open_top(project_folder)
    try:
        for entry in artifacts.entries(nonce_folder):
            if entry["kind"] == "file" and entry["size"] and not has(root, entry["sha256"]):
                try:
                    came = _adopt_one(root, top, entry)
                except Refusal:
                    break
                except OSError as error:
                    if disk_room.is_no_room(error):
                        break
                    continue
                files += came
                total += came and entry["size"]
    finally:
        os.close(top)
    return {"files": files, "bytes": total}


def _adopt_one(root: str, top: int, entry: Dict[str, Any]) -> int:
    parts = safe_paths.split_path(entry["path"], "changed")
    folder = safe_paths.open_folder(top, parts[:-1])
    source = -1
    try:
        source = os.open(parts[-1], safe_paths.FILE_FLAGS, dir_fd=folder)
        with _Incoming(root, entry["sha256"]) as incoming:
            if not incoming.take(source, folder, parts[-1]):
                incoming.create()
                right = copy_verified(source, incoming.fd, entry["sha256"], entry["size"])
            else:
                # Hashed behind the move: at the former place a process of the job could still change the file.
                right = safe_paths.hash_file(source) == (entry["sha256"], entry["size"])
            if right:
                incoming.keep()
            return int(right)
    finally:
        if source >= 0:
            os.close(source)
        os.close(folder)


class _Incoming:
    """A file in the store that becomes the blob by `keep`, and else vanishes. The file is created or taken from
    elsewhere."""

    def __init__(self, root: str, digest: str) -> None:
        self._store = os.path.join(root, "store")
        self._path = os.path.join(self._store, temporary_name())
        self._final = blob_path(root, digest)
        self._there = False
        self.fd = -1

    def __enter__(self) -> _Incoming:
        return self

    def create(self) -> None:
        """An empty file to write to."""
        try:
            try:
                self.fd = os.open(self._path, safe_paths.NEW_FILE_FLAGS, 0o600)
            except FileNotFoundError:
                make_folder(self._store)
                self.fd = os.open(self._path, safe_paths.NEW_FILE_FLAGS, 0o600)
        except OSError as error:
            raise self._full(error) from None
        self._there = True

    def take(self, source: int, folder: int, name: bytes) -> bool:
        """Move the open file `source` from its place, out of the reach of other processes; False for a file that must
        be copied. A move costs neither time nor space, and the attempt behind the file is about to be removed."""
        state = os.fstat(source)
        # Whoever writes to the file by another name, or owns the file, would change the blob.
        if not stat.S_ISREG(state.st_mode) or state.st_nlink != 1 or state.st_uid != os.geteuid():
            return False
        try:
            make_folder(self._store)
            os.rename(name, self._path, src_dir_fd=folder)
        except OSError:
            return False  # a folder that is read-only, or another disk
        self._there = True
        # Between the look and the rename another file may have taken the name.
        if not os.path.samestat(os.lstat(self._path), state):
            raise OSError(errno.ESTALE, "it was replaced meanwhile")
        os.fchmod(source, 0o600)
        # The time of the last use, by which eviction goes.
        os.utime(source)
        return True

    def write(self, data: Union[bytes, memoryview]) -> None:
        try:
            safe_paths.write_all(self.fd, data)
        except OSError as error:
            raise self._full(error) from None

    def keep(self) -> None:
        try:
            try:
                os.rename(self._path, self._final)
            except FileNotFoundError:
                make_folder(os.path.dirname(self._final))
                os.rename(self._path, self._final)
        except OSError as error:
            raise self._full(error) from None
        self._there = False

    def __exit__(self, *_: object) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        if self._there:
            os.unlink(self._path)

    def _full(self, error: OSError) -> Refusal:
        message = "cannot write to %s: %s" % (self._store, error.strerror)
        return disk_room.refusal(error, "store", message, "look at that folder on the host")
