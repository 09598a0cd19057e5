"""Python libraries for opening the bucket: stored by hash, verified before unpacking."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable

from dstack.private_folder import make_folder, open_folder
from dstack.wire import Refusal

LIBRARY_LIMIT_BYTES = 200 << 20
"""Bytes, packed and unpacked."""
_HEX = frozenset("0123456789abcdef")


def library_folder(root: str, sha256: str) -> str:
    """The folder of a library, ready for the import path; raises Refusal for a name that is no sha256."""
    if len(sha256) != 64 or not set(sha256) <= _HEX:
        raise Refusal("request", "the library has no name")
    return os.path.join(root, "library", sha256)


def trusted_library_folder(root: str, sha256: str) -> str:
    """The folder of a library owned by this account alone: its code is about to run. Raises OSError for others."""
    path = library_folder(root, sha256)
    os.close(open_folder(path))
    return path


def has_library(root: str, sha256: str) -> bool:
    return os.path.isdir(library_folder(root, sha256))


def receive_library(root: str, sha256: str, pieces: Iterable[bytes]) -> None:
    """Unpack the zip file in `pieces`. May be repeated.

    Raises Refusal for a zip file with another sha256, above LIBRARY_LIMIT_BYTES, or with names outside the folder.
    """
    target = library_folder(root, sha256)
    parent = os.path.dirname(target)
    make_folder(parent)
    found = hashlib.sha256()
    with tempfile.TemporaryFile(dir=parent) as file:
        for piece in pieces:
            found.update(piece)
            file.write(piece)
            if file.tell() > LIBRARY_LIMIT_BYTES:
                raise Refusal("hash", f"the library is larger than {LIBRARY_LIMIT_BYTES >> 20} MiB")
        if found.hexdigest() != sha256:
            raise Refusal("hash", "the library came damaged", "try again")
        # Unpacked beside its place and renamed: a folder with the right name is always whole.
        fresh = tempfile.mkdtemp(dir=parent, prefix="new-")
        try:
            with zipfile.ZipFile(file) as archive:
                _unpack(archive, fresh)
            _move(fresh, target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def _unpack(archive: zipfile.ZipFile, target: str) -> None:
    # The packed size says nothing of the unpacked: a small zip file can fill the disk.
    if sum(item.file_size for item in archive.infolist()) > LIBRARY_LIMIT_BYTES:
        raise Refusal("hash", f"the library is larger than {LIBRARY_LIMIT_BYTES >> 20} MiB")
    for item in archive.infolist():
        parts = item.filename.split("/")
        if item.filename.startswith("/") or any(part in ("", ".", "..") for part in parts):
            raise Refusal("hash", f"{item.filename!r} in the library is a name that leads elsewhere")
    archive.extractall(target)


def _move(fresh: str, target: str) -> None:
    try:
        os.rename(fresh, target)
    except OSError:
        if not os.path.isdir(target):
            raise  # else another process was first, which is as good
