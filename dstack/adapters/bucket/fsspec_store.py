"""Any fsspec URL as a bucket, if its file system can create an object only when absent.

fsspec offers `mode="create"` everywhere; its generic implementation looks first and writes then, and some backends
swallow the argument. These backends are refused at once, and the others probed at first use
(`app/maintenance/bucket_probe.py`).
"""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dstack.adapters.bucket.backend import Backend, Options, Properties
from dstack.adapters.bucket.remote_errors import (
    MAX_GET_BYTES,
    NAME_ANOTHER_HINT,
    REMOTE_READ_BYTES,
    join_chunks,
    redact_url,
    short_message,
    too_long_error,
)
from dstack.core.format.key_rules import check_key, check_prefix, check_range
from dstack.errors import BucketError, DamagedObjectError
from dstack.ports import Listed, Put

_MEMORY = threading.RLock()
"""`memory://` is one dictionary for the whole process, and has no atomic create of its own."""

_WRITE = "_pipe_file"
"""The method for writing an object, overridden by a backend for a network."""

_REFUSALS = (PermissionError, NotImplementedError, TypeError, ValueError)
"""Errors raised by a backend before anything was sent."""


def open_fsspec(url: str, options: Options, home: str) -> FsspecBucket:
    """The bucket at an fsspec URL; raises BucketError for an unknown kind, and for a kind unfit as a bucket.

    ImportError when fsspec itself is not installed.
    """
    from fsspec.core import url_to_fs

    try:
        # No listing caches and no shared instance: another writer's objects must show at once.
        file_system, root = url_to_fs(url, use_listings_cache=False, skip_instance_cache=True, **options)
    except ImportError as error:
        missing = error.name or str(error)
        raise BucketError(
            f"{redact_url(url)} needs a library that is not installed: {missing}", hint="install the library it names"
        ) from None
    except Exception as error:
        raise BucketError(
            f"{redact_url(url)} cannot be opened: {short_message(error)}", hint="check `bucket:` in config.yaml"
        ) from None
    return FsspecBucket(file_system, root, label=redact_url(url))


class FsspecBucket:
    """The `Bucket` port on an fsspec file system, below the folder `root`.

    Raises BucketError for a file system without an exclusive create of its own. Listing caches are off, and an object
    exists when reading works.
    """

    def __init__(self, file_system: Any, root: str, *, label: str) -> None:
        from fsspec.implementations.memory import MemoryFileSystem

        self._fs = file_system
        self._root = root.rstrip("/")
        self._label = label.rstrip("/")
        self.trouble = ""
        self._in_memory = isinstance(file_system, MemoryFileSystem)
        if not self._in_memory and not _has_exclusive_create(file_system):
            raise BucketError(
                f"{label} cannot be a bucket: this kind of storage has no way to create an object only if it is absent",
                hint=NAME_ANOTHER_HINT,
            )

    def create(self, key: str, body: bytes) -> Put:
        path = self._path(key)
        try:
            if self._in_memory:
                with _MEMORY:
                    self._fs.pipe_file(path, body, mode="create")
            else:
                self._fs.pipe_file(path, body, mode="create")
        except FileExistsError:
            return Put.EXISTS
        except _REFUSALS as error:
            # Before any byte was sent: certainly not created.
            raise self._error("create", key, error) from None
        except Exception as error:
            # The libraries retry by themselves and raise what they like: only the object can tell.
            self.trouble = f"{self._label} said: {short_message(error)}"
            return Put.UNKNOWN
        return Put.CREATED

    def create_from(self, key: str, chunks: Iterable[bytes]) -> Put:
        check_key(key)
        return self.create(key, join_chunks(self._place(key), chunks))

    def put(self, key: str, body: bytes) -> None:
        path = self._path(key)
        with self._explained("write", key):
            self._fs.pipe_file(path, body)

    def get(self, key: str) -> bytes | None:
        path = self._path(key)
        with self._explained("read", key):
            try:
                size = self._fs.info(path)["size"]
                if size > MAX_GET_BYTES:
                    raise too_long_error(key, self._place(key), size)
                return bytes(self._fs.cat_file(path))
            except FileNotFoundError:
                return None

    def read(self, key: str, offset: int, length: int) -> Iterator[bytes]:
        path = self._path(key)
        check_range(key, offset, length)
        with self._explained("read", key):
            try:
                size = self._fs.info(path)["size"]
            except FileNotFoundError:
                raise DamagedObjectError(key, f"{self._place(key)} does not exist") from None
        if size < offset + length:
            raise DamagedObjectError(key, f"{self._place(key)} is shorter than {offset + length} bytes")
        for start in range(offset, offset + length, REMOTE_READ_BYTES):
            end = min(start + REMOTE_READ_BYTES, offset + length)
            with self._explained("read", key):
                piece = bytes(self._fs.cat_file(path, start=start, end=end))
            if len(piece) != end - start:
                raise BucketError(f"{self._place(key)} changed while it was read", hint="something else writes there")
            yield piece

    def list(self, prefix: str, *, limit: int | None = None) -> Sequence[str]:
        folder = self._folder(prefix)
        with self._explained("list", prefix):
            try:
                names = self._fs.find(folder)
            except FileNotFoundError:
                return []
        return sorted(prefix + self._below(folder, name) for name in names)[:limit]

    def survey(self, prefix: str) -> Iterator[Listed]:
        folder = self._folder(prefix)
        with self._explained("list", prefix):
            try:
                found: Mapping[str, Any] = self._fs.find(folder, detail=True)
            except FileNotFoundError:
                return
        for name, entry in found.items():
            yield Listed(key=prefix + self._below(folder, name), size=entry["size"] or 0, modified=_modified(entry))

    def children(self, prefix: str, *, limit: int | None = None, after: str = "") -> Sequence[str]:
        folder = self._folder(prefix)
        with self._explained("list", prefix):
            try:
                entries = self._fs.ls(folder, detail=True)
            except FileNotFoundError:
                return []
        names = (
            self._below(folder, entry["name"].rstrip("/")) + ("/" if entry["type"] == "directory" else "")
            for entry in entries
        )
        return sorted(name for name in names if name > after)[:limit]

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._explained("delete", key):
            try:
                self._fs.rm_file(path)
            except FileNotFoundError:
                return

    def _path(self, key: str) -> str:
        return f"{self._root}/{check_key(key)}"

    def _folder(self, prefix: str) -> str:
        return f"{self._root}/{check_prefix(prefix)}".rstrip("/")

    def _below(self, folder: str, name: str) -> str:
        return name.removeprefix(folder + "/")

    def _place(self, key: str) -> str:
        return f"{self._label}/{key}"

    def _error(self, doing: str, key: str, error: BaseException) -> BucketError:
        hint = "check that the storage can be reached and that its credentials are right"
        return BucketError(f"cannot {doing} {self._place(key)}: {short_message(error)}", hint=hint)

    @contextmanager
    def _explained(self, doing: str, key: str) -> Iterator[None]:
        try:
            yield
        except BucketError:
            raise
        except Exception as error:
            raise self._error(doing, key, error) from None


def _modified(entry: Mapping[str, Any]) -> float:
    """The time of an object's last write, under any of the names in use by file systems. Else: now, so that no object
    counts as old."""
    from datetime import datetime

    for name in ("LastModified", "last_modified", "mtime", "modified", "updated", "created"):
        value = entry.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, str):
            try:
                return datetime.fromisoformat(value).timestamp()
            except ValueError:
                continue
    return time.time()


def _has_exclusive_create(file_system: Any) -> bool:
    """Whether the backend itself takes `mode`: the generic write looks first, and `**kwargs` swallow the argument."""
    from fsspec.asyn import AsyncFileSystem

    generic = getattr(AsyncFileSystem, _WRITE)
    write = getattr(type(file_system), _WRITE, generic)
    return write is not generic and "mode" in inspect.signature(write).parameters


FSSPEC_BACKEND = Backend(
    properties=Properties(name="fsspec", schemes=(), extra="s3", host_packages=None), open=open_fsspec
)
