"""Every implementation of the bucket port, and one that is broken on purpose."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from obstore.store import MemoryStore

from dstack.adapters.bucket.backend import Backend
from dstack.adapters.bucket.folder import FOLDER_BACKEND, FolderBucket
from dstack.adapters.bucket.fsspec_store import FSSPEC_BACKEND
from dstack.adapters.bucket.object_stores.azure import AZURE_BACKEND
from dstack.adapters.bucket.object_stores.gcs import GCS_BACKEND
from dstack.adapters.bucket.object_stores.obstore_store import ObstoreBucket
from dstack.adapters.bucket.object_stores.s3 import S3_BACKEND, S3_CONTAINER
from dstack.adapters.bucket.opener import open_bucket
from dstack.ports import Bucket, Put
from tests.lacking import missing
from tests.support.buckets import object_stores, other_stores
from tests.support.buckets.memory import MemoryBucket


def folder(path: Path) -> Bucket:
    return FolderBucket(path / "not" / "yet" / "there")


def shared_folder(path: Path) -> Bucket:
    path.mkdir(exist_ok=True)
    path.chmod(0o2770)
    return FolderBucket(path)


def fsspec_memory(path: Path) -> Bucket:
    return open_bucket(f"memory://{path}", {}, path)


def obstore_memory(path: Path) -> Bucket:
    return ObstoreBucket(MemoryStore(), S3_CONTAINER, label="memory")


def memory_fake(path: Path) -> Bucket:
    return MemoryBucket()


STORES: dict[str, Callable[[], object_stores.Store]] = {
    "s3-ministack": object_stores.ministack,
    "gcs-emulator": other_stores.google,
    "azure-azurite": other_stores.azurite,
}


if os.environ.get("DSTACK_S3_ENDPOINT"):
    # A real store beside the emulators: the suite is then run on it too.
    STORES["s3-real"] = lambda: object_stores.ObjectStore(
        endpoint=os.environ["DSTACK_S3_ENDPOINT"],
        key=os.environ["AWS_ACCESS_KEY_ID"],
        secret=os.environ["AWS_SECRET_ACCESS_KEY"],
    )


KINDS: dict[str, Callable[[Path], Bucket]] = {
    "folder": folder,
    "shared-folder": shared_folder,
    "fsspec-memory": fsspec_memory,
    "obstore-memory": obstore_memory,
    "memory-fake": memory_fake,
    **{kind: lambda path, kind=kind: STORES[kind]().bucket(path) for kind in STORES},  # type: ignore[misc]
}


BACKENDS: dict[str, Backend] = {
    "folder": FOLDER_BACKEND,
    "shared-folder": FOLDER_BACKEND,
    "fsspec-memory": FSSPEC_BACKEND,
    "s3-ministack": S3_BACKEND,
    "gcs-emulator": GCS_BACKEND,
    "azure-azurite": AZURE_BACKEND,
}
"""Kind -> the backend of the registry that the kind plays. A backend without a kind fails `test_bucket.py`."""


def store_of(kind: str) -> object_stores.Store:
    """The running store of that kind; the test is skipped where what it needs is not on this machine."""
    try:
        return STORES[kind]()
    except object_stores.Unavailable as reason:
        missing("azurite", str(reason))


def opened(kind: str, path: Path) -> Bucket:
    """A bucket of that kind; the test is skipped where what it needs is not on this machine."""
    try:
        return KINDS[kind](path)
    except object_stores.Unavailable as reason:
        missing("azurite", str(reason))


class LookThenWrite(FolderBucket):
    """What must not pass: looks whether the object exists, then writes it in place. fsspec does this on local files."""

    def create(self, key: str, body: bytes) -> Put:
        target = f"{self.path}/{key}"
        if os.path.exists(target):
            return Put.EXISTS
        time.sleep(0.001)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as file:
            file.write(body)
        return Put.CREATED


FOLDERS: dict[str, Callable[[Path], FolderBucket]] = {
    "folder": FolderBucket,
    "broken": LookThenWrite,
}
