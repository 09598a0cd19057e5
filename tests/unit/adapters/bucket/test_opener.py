"""Which bucket a URL names, and which it may not name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

from dstack.adapters.bucket.folder import FolderBucket
from dstack.adapters.bucket.fsspec_store import FsspecBucket
from dstack.adapters.bucket.object_stores.obstore_store import ObstoreBucket
from dstack.adapters.bucket.opener import open_bucket
from dstack.adapters.bucket.registry import backend_of
from dstack.app.maintenance.bucket_probe import FULL_PROBE, LIGHT_PROBE, effort_for
from dstack.errors import BucketError
from dstack.ports import Put


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/srv/b", "/srv/b"),
        ("/srv/x/../b/", "/srv/b"),
        ("~/b", "/home/alice/b"),
        ("~", "/home/alice"),
        ("file:///srv/b", "/srv/b"),
        ("FILE:///srv/b", "/srv/b"),
        ("file://localhost/srv/b", "/srv/b"),
        ("local:///srv/b", "/srv/b"),
        ("/srv/with space", "/srv/with space"),
    ],
)
def test_paths_and_file_urls_are_folders(url: str, path: str) -> None:
    bucket = open_bucket(url, {}, "/home/alice")
    assert isinstance(bucket, FolderBucket)
    assert bucket.path == path
    assert effort_for(backend_of(url).properties.exclusion) == LIGHT_PROBE


def test_a_relative_path_counts_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bucket = open_bucket("b", {}, "/home/alice")
    monkeypatch.chdir("/")
    assert isinstance(bucket, FolderBucket)
    assert bucket.path == str(tmp_path / "b")


@pytest.mark.parametrize(
    ("url", "options"),
    [
        (
            "s3://bucket/path",
            {"key": "k", "secret": "s", "client_kwargs": {"endpoint_url": "http://127.0.0.1:1", "region_name": "x"}},
        ),
        ("s3://bucket", {"access_key_id": "k", "secret_access_key": "s", "region": "x"}),
        ("gs://bucket/path", {"skip_signature": True}),
        ("az://container/path", {"account_name": "a", "account_key": "a2V5"}),
    ],
)
def test_object_stores_are_served_by_obstore_with_fsspecs_options(url: str, options: dict[str, Any]) -> None:
    bucket = open_bucket(url, options, "/home/alice")
    assert isinstance(bucket, ObstoreBucket)
    assert effort_for(backend_of(url).properties.exclusion) == FULL_PROBE


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("", {}, "empty"),
        ("  ", {}, "empty"),
        ("file://host/b", {}, "no folder of this machine"),
        ("/srv/b", {"colour": 1}, "takes no storage options, but there are: colour"),
        ("simplecache::s3://b", {}, "chained"),
        ("simplecache::/srv/b", {}, "chained"),
        ("nope://b", {}, "cannot be opened"),
        ("s3://b", {"colour": "x"}, "colour"),
        ("reference://b", {}, "cannot be"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(url: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BucketError, match=message) as caught:
        open_bucket(url, options, "/home/alice")
    assert caught.value.hint


def test_a_password_in_a_url_is_not_shown() -> None:
    with pytest.raises(BucketError) as caught:
        open_bucket("nope://alice:hunter2@host/b?sig=hunter2", {}, "/home/alice")
    assert "hunter2" not in str(caught.value)


def test_opening_a_folder_imports_no_storage_library() -> None:
    code = "import sys; from dstack.adapters.bucket.opener import open_bucket; open_bucket('/srv/b', {}, '/');"
    code += "print([name for name in ('fsspec', 'obstore', 'asyncio', 'logging', 'yaml') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("library", "url", "hint"),
    [("obstore", "s3://b", "'.[s3]'"), ("obstore", "gs://b", "'.[gcs]'"), ("obstore", "az://b", "'.[azure]'"),
     ("fsspec", "memory://b", "'.[s3]'")],
)  # fmt: skip
def test_a_missing_library_is_answered_with_the_extra(library: str, url: str, hint: str) -> None:
    code = f"import sys; sys.modules[{library!r}] = None\n"
    code += "from dstack.adapters.bucket.opener import open_bucket\nfrom dstack.errors import BucketError\n"
    code += f"try: open_bucket({url!r}, {{}}, '/')\nexcept BucketError as error: print(error, '|', error.hint)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "not installed" in done.stdout
    assert hint in done.stdout


class Dictionary(AsyncFileSystem):  # type: ignore[misc]
    """A backend with an exclusive create of its own, in one event loop, and with errors on demand."""

    cachable = False

    def __init__(self) -> None:
        super().__init__(asynchronous=False)
        self.objects: dict[str, bytes] = {}
        self.error: Exception | None = None

    async def _pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        if self.error is not None:
            raise self.error
        if mode == "create" and path in self.objects:
            raise FileExistsError(path)
        self.objects[path] = value

    async def _info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        if path not in self.objects:
            raise FileNotFoundError(path)
        return {"name": path, "size": len(self.objects[path]), "type": "file"}

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        return self.objects[path][start:end]


class Swallower(Dictionary):
    async def _pipe_file(self, path: str, value: bytes, **kwargs: Any) -> None:  # type: ignore[override]
        self.objects[path] = value


def test_a_backend_with_an_exclusive_create_of_its_own_is_used() -> None:
    bucket = FsspecBucket(Dictionary(), "root", label="x://root")
    assert bucket.create("a/b", b"1") is Put.CREATED
    assert bucket.create("a/b", b"2") is Put.EXISTS
    assert bucket.get("a/b") == b"1"
    assert bucket.get("a/c") is None


@pytest.mark.parametrize(
    "error", [TimeoutError("slow"), OSError(22, "PreconditionFailed"), ConnectionResetError(), RuntimeError("x")]
)
def test_an_answer_that_was_lost_is_unknown(error: Exception) -> None:
    store = Dictionary()
    store.error = error
    assert FsspecBucket(store, "root", label="x://root").create("a/b", b"1") is Put.UNKNOWN


@pytest.mark.parametrize("error", [PermissionError("no"), NotImplementedError("mode")])
def test_a_refusal_is_an_error(error: Exception) -> None:
    store = Dictionary()
    store.error = error
    with pytest.raises(BucketError, match="cannot create x://root/a/b"):
        FsspecBucket(store, "root", label="x://root").create("a/b", b"1")


@pytest.mark.parametrize(
    "store",
    [
        Swallower,
        lambda: fsspec.filesystem("file"),
        lambda: AsyncFileSystemWrapper(fsspec.filesystem("file"), asynchronous=False),
    ],
    ids=["swallower", "local", "wrapped-local"],
)
def test_a_backend_that_looks_first_or_swallows_the_condition_is_refused(store: Any) -> None:
    with pytest.raises(BucketError, match="no way to create an object only if it is absent"):
        FsspecBucket(store(), "/root", label="x://root")
