"""The bucket in a folder of this machine or of a mounted server. Standard library only: every command imports this
module.

An object begins as a temporary file, written and flushed, and is then linked to its name: link(2) is atomic, refuses a
taken name, and shows either nothing or the whole. Names are resolved folder by folder and never through a symbolic
link, so that no writer of a shared bucket can lead a reader out of the folder.

Permissions. A folder writable by its owner alone is private: sub-folders 0700, files 0600, under any umask. A folder
writable by its group (`chmod g+rwxs`) is shared: sub-folders 0770 with the setgid bit, files 0660; where others may
write too, 0777 and 0666. A missing folder is made private.
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from errno import EISDIR

from dstack.adapters.bucket.backend import Backend, Options, Properties
from dstack.adapters.bucket.folder_files import (
    absent,
    descend,
    explain,
    gather,
    identity,
    names_in,
    open_object,
    read_up_to,
    regular_size,
    remove_empty,
    walk,
)
from dstack.adapters.bucket.folder_writer import ObjectWriter, is_shared
from dstack.adapters.bucket.remote_errors import MAX_GET_BYTES, redact_url, too_long_error
from dstack.core.format.key_rules import check_key, check_prefix, check_range
from dstack.core.format.keys import FORMAT_KEY
from dstack.errors import BucketError, DamagedObjectError
from dstack.ports import Exclusion, Listed, Put

FOLDER_READ_BYTES = 1 << 20


class FolderBucket:
    """The `Bucket` port on a folder; the first write makes a missing `path`, private.

    Every method raises BucketError, with the path and the way out, when the file system refuses. An object is durable
    when `create` returns: its file is flushed, then the folders with its name. `children` may name an empty folder,
    left by a writer that died. Machines with a mount of the same NFS export may share a bucket; by the rules of NFS a
    client may see a new object up to a minute late.

    Once `dstack.json` was read, the folder must keep this file: an unmounted file system leaves an empty folder, which
    would look as if nothing was ever claimed.
    """

    trouble = ""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        self._format: bytes | None = None
        self._identity = (0, 0)

    def __repr__(self) -> str:
        return f"FolderBucket({self.path!r})"

    def create(self, key: str, body: bytes) -> Put:
        return self.create_from(key, (body,))

    def create_from(self, key: str, chunks: Iterable[bytes]) -> Put:
        parts = check_key(key).split("/")
        with self._explained("create", key):
            writing = ObjectWriter(self.path)
        with writing:
            # What `chunks` raises is none of ours and passes through unchanged.
            for chunk in chunks:
                with self._explained("create", key):
                    writing.write(chunk)
            with self._explained("create", key):
                writing.flush()
                return writing.link(parts)

    def put(self, key: str, body: bytes) -> None:
        parts = check_key(key).split("/")
        with self._explained("write", key), ObjectWriter(self.path) as writing:
            writing.write(body)
            writing.flush()
            writing.rename(parts)

    def get(self, key: str) -> bytes | None:
        parts = check_key(key).split("/")
        with self._explained("read", key):
            fd = open_object(self.path, parts)
            if fd is None:
                return None
            try:
                size = regular_size(fd)
                if size > MAX_GET_BYTES:
                    raise too_long_error(key, self._place(key), size)
                body = read_up_to(fd, size)
            finally:
                os.close(fd)
        # Objects never change in place, so a shorter read means another program at work here.
        if len(body) != size:
            raise BucketError(f"{self._place(key)} shrank while it was read", hint="something else writes there")
        if key == FORMAT_KEY:
            self._format, self._identity = body, identity(self.path)
        return body

    def read(self, key: str, offset: int, length: int) -> Iterator[bytes]:
        parts = check_key(key).split("/")
        check_range(key, offset, length)
        with self._explained("read", key):
            fd = open_object(self.path, parts)
        if fd is None:
            raise DamagedObjectError(key, f"{self._place(key)} does not exist")
        try:
            end = offset + length
            with self._explained("read", key):
                size = regular_size(fd)
            while offset < min(end, size):
                with self._explained("read", key):
                    piece = os.pread(fd, min(FOLDER_READ_BYTES, end - offset), offset)
                if not piece:
                    break
                offset += len(piece)
                yield piece
            if offset < end or size < end:
                raise DamagedObjectError(key, f"{self._place(key)} is shorter than {end} bytes")
        finally:
            os.close(fd)

    def list(self, prefix: str, *, limit: int | None = None) -> Sequence[str]:
        parts = check_prefix(prefix).split("/")[:-1]
        found: list[str] = []
        with self._explained("list", prefix):
            fd = absent(descend, self.path, parts)
            if fd is not None:
                gather(fd, prefix, found, limit)
        return found

    def survey(self, prefix: str) -> Iterator[Listed]:
        parts = check_prefix(prefix).split("/")[:-1]
        with self._explained("list", prefix):
            fd = absent(descend, self.path, parts)
            if fd is not None:
                yield from walk(fd, prefix)

    def children(self, prefix: str, *, limit: int | None = None, after: str = "") -> Sequence[str]:
        parts = check_prefix(prefix).split("/")[:-1]
        with self._explained("list", prefix):
            fd = absent(descend, self.path, parts)
            if fd is None:
                return []
            try:
                names = names_in(fd, top=not parts)
                return names[bisect_right(names, after) :][:limit]
            finally:
                os.close(fd)

    def delete(self, key: str) -> None:
        *folders, name = check_key(key).split("/")
        with self._explained("delete", key):
            fd = absent(descend, self.path, folders)
            if fd is None:
                return
            try:
                absent(os.unlink, name, dir_fd=fd)
            except PermissionError as error:
                # Some systems say so of a folder.
                raise OSError(EISDIR, "is a folder") if name + "/" in names_in(fd) else error from None
            finally:
                os.close(fd)
            # An object store has no folders: an empty one would show in `children`.
            remove_empty(self.path, folders)

    def is_private(self) -> bool:
        """Whether only one account can use the bucket, by the mode of the folder or of the files of its first use."""
        with self._explained("look at", FORMAT_KEY):
            found = [absent(os.stat, path) for path in (self.path, self._place(FORMAT_KEY))]
        return any(not is_shared(each.st_mode) for each in found if each is not None)

    def _place(self, key: str) -> str:
        return f"{self.path}/{key}"

    @contextmanager
    def _explained(self, doing: str, key: str) -> Iterator[None]:
        try:
            if self._format is not None and not self._is_same(self._format):
                raise BucketError(
                    f"cannot {doing} {self._place(key)}: the bucket that was there is gone",
                    hint=f"is the file system of {self.path} mounted?",
                )
            yield
        except OSError as error:
            explained = explain(error, doing, self._place(key))
            if doing == "read" and error.errno in (errno.EISDIR, errno.ELOOP):
                raise DamagedObjectError(
                    key, str(explained), hint=explained.hint
                ) from None  # a folder, pipe or link stands in its place
            raise explained from None

    def _is_same(self, body: bytes) -> bool:
        """Whether the folder still has the `dstack.json` read before, also after a new mount."""
        found = identity(self.path)
        if found == self._identity:
            return True
        fd = open_object(self.path, [FORMAT_KEY])
        if fd is None:
            return False
        try:
            same = read_up_to(fd, len(body) + 1) == body
        finally:
            os.close(fd)
        if same:
            self._identity = found
        return same


def _path(url: str, home: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in _SCHEMES:
        return os.path.abspath(os.path.join(home, url[2:]) if url.startswith("~/") or url == "~" else url)
    path = rest.removeprefix("localhost") if rest.startswith("localhost/") else rest
    if not path.startswith("/"):
        raise BucketError(f"{redact_url(url)} names no folder of this machine", hint="write file:///path")
    return os.path.abspath(path)


def _open(url: str, options: Options, home: str) -> FolderBucket:
    path = _path(url, home)
    if options:
        names = ", ".join(sorted(options))
        raise BucketError(f"a bucket in a folder takes no storage options, but there are: {names}", hint="remove them")
    return FolderBucket(path)


_SCHEMES = ("file", "local")
FOLDER_BACKEND = Backend(
    properties=Properties(
        name="folder",
        schemes=_SCHEMES,
        is_path=True,
        exclusion=Exclusion.KERNEL,
        reads_at_once=1,
        extra="",
        host_packages=(),
    ),
    open=_open,
    path=_path,
    is_private=lambda path: FolderBucket(path).is_private(),
)
