"""S3, Google Cloud Storage and Azure Blob as a bucket, by obstore."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    NotFoundError,
    NotSupportedError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnknownConfigurationKeyError,
)
from obstore.store import from_url as _from_url

from dstack.adapters.aws_profile import aws_credentials
from dstack.adapters.bucket_remote import MAX_GET, PIECE, brief, collected, redacted, too_long
from dstack.core.keycheck import check_key, check_prefix, check_range
from dstack.errors import BucketError
from dstack.ports import Listed, Put

from_url: Any = _from_url
"""Typed by its own names for every option; ours come from a file."""

RETRY = {"max_retries": 5}
FSSPEC_NAMES = {
    "key": "access_key_id",
    "secret": "secret_access_key",
    "endpoint_url": "endpoint",
    "region_name": "region",
    "token": "session_token",
    "anon": "skip_signature",
}
"""fsspec's storage options for S3 -> obstore's names of the same; its other names are obstore's already."""

S3 = ("s3://", "s3a://")
ENDPOINT = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
OWN_CREDENTIALS = {"access_key_id", "aws_access_key_id", "skip_signature", "aws_skip_signature"}
"""Options that say whose credentials count: then nothing is looked for."""

_ABSENT = (NotFoundError, FileNotFoundError)
_REFUSALS = (
    *_ABSENT,
    InvalidPathError,
    NotSupportedError,
    PermissionDeniedError,
    PermissionError,
    UnauthenticatedError,
)
"""Answers after which the object was certainly not created."""


def open_obstore(url: str, options: Mapping[str, Any]) -> ObstoreBucket:
    """The bucket at an s3://, gs:// or az:// URL; raises BucketError for a URL or options that make no sense."""
    config = _config(url, options)
    given: dict[str, Any] = {"retry_config": RETRY}
    if url.startswith(S3):
        profile = config.pop("profile", None)
        endpoint = config.setdefault("endpoint", _named_endpoint())
        if endpoint is None:
            del config["endpoint"]
        elif str(endpoint).startswith("http://"):
            given["client_options"] = {"allow_http": True}
        if not config.keys() & OWN_CREDENTIALS:
            given |= aws_credentials(profile, os.environ)
    try:
        store = from_url(url, config=config, **given)
    except (BaseError, TypeError, ValueError) as error:
        hint = "check `bucket:` and its options in config.yaml"
        if isinstance(error, UnknownConfigurationKeyError):
            hint = (
                "options are obstore's, such as region, endpoint, access_key_id, and fsspec's key, secret, endpoint_url"
            )
        raise BucketError(f"{redacted(url)} cannot be opened: {brief(error)}", hint=hint) from None
    return ObstoreBucket(store, label=redacted(url))


def _named_endpoint() -> str | None:
    """The endpoint that the environment names for S3, as AWS's own tools read it."""
    return next((os.environ[name] for name in ENDPOINT if os.environ.get(name)), None)


def _config(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    if not url.startswith(S3):
        return dict(options)
    flat = {name: value for name, value in options.items() if name != "client_kwargs"}
    flat.update(options.get("client_kwargs") or {})
    return {FSSPEC_NAMES.get(name, name): value for name, value in flat.items()}


class ObstoreBucket:
    """The `Bucket` port on an obstore store; one conditional request creates an object, never a multipart upload."""

    def __init__(self, store: Any, *, label: str) -> None:
        self._store = store
        self._label = label.rstrip("/")

    def create(self, key: str, body: bytes) -> Put:
        check_key(key)
        try:
            obstore.put(self._store, key, body, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return Put.EXISTS
        except _REFUSALS as error:
            raise self._error("create", key, error) from None
        except (BaseError, OSError):
            # Timeouts and server errors: it may have landed, or land later. Only the object can tell.
            return Put.UNKNOWN
        return Put.CREATED

    def create_from(self, key: str, chunks: Iterable[bytes]) -> Put:
        check_key(key)
        return self.create(key, collected(self._place(key), chunks))

    def put(self, key: str, body: bytes) -> None:
        check_key(key)
        with self._explained("write", key):
            obstore.put(self._store, key, body, use_multipart=False)

    def get(self, key: str) -> bytes | None:
        check_key(key)
        with self._explained("read", key):
            try:
                found = obstore.get(self._store, key)
            except _ABSENT as error:
                if _no_container(error):
                    raise
                return None
            size = found.meta["size"]
            if size > MAX_GET:
                raise too_long(self._place(key), size)
            return bytes(found.bytes())

    def read(self, key: str, offset: int, length: int) -> Iterator[bytes]:
        check_key(key)
        check_range(key, offset, length)
        with self._explained("read", key):
            size = obstore.head(self._store, key)["size"]
        if size < offset + length:
            raise BucketError(
                f"{self._place(key)} is shorter than {offset + length} bytes", hint="run what needs it with --rerun"
            )
        for start in range(offset, offset + length, PIECE):
            wanted = min(PIECE, offset + length - start)
            with self._explained("read", key):
                piece = bytes(obstore.get_range(self._store, key, start=start, length=wanted))
            if len(piece) != wanted:
                raise BucketError(f"{self._place(key)} changed while it was read", hint="something else writes there")
            yield piece

    def list(self, prefix: str, *, limit: int | None = None) -> Sequence[str]:
        check_prefix(prefix)
        found: list[str] = []
        with self._explained("list", prefix):
            for page in obstore.list(self._store, prefix=prefix or None, chunk_size=1000):
                found.extend(entry["path"] for entry in page)
                # These stores list in ascending order: what comes later sorts later.
                if limit is not None and len(found) >= limit:
                    break
        return sorted(found)[:limit]

    def survey(self, prefix: str) -> Iterator[Listed]:
        check_prefix(prefix)
        pages = iter(obstore.list(self._store, prefix=prefix or None, chunk_size=1000))
        while True:
            with self._explained("list", prefix):
                page = next(pages, None)
            if page is None:
                return
            for entry in page:
                yield Listed(key=entry["path"], size=entry["size"], modified=entry["last_modified"].timestamp())

    def children(self, prefix: str, *, limit: int | None = None) -> Sequence[str]:
        check_prefix(prefix)
        with self._explained("list", prefix):
            page = obstore.list_with_delimiter(self._store, prefix=prefix or None)
        names = [entry["path"].removeprefix(prefix) for entry in page["objects"]]
        names += [path.rstrip("/").removeprefix(prefix) + "/" for path in page["common_prefixes"]]
        return sorted(names)[:limit]

    def delete(self, key: str) -> None:
        check_key(key)
        with self._explained("delete", key):
            try:
                obstore.delete(self._store, key)
            except _ABSENT:
                return

    def _place(self, key: str) -> str:
        return f"{self._label}/{key}"

    def _error(self, doing: str, key: str, error: BaseException) -> BucketError:
        hint = "check that the store can be reached, that it exists and that your credentials are right"
        return BucketError(f"cannot {doing} {self._place(key)}: {brief(error)}", hint=hint)

    @contextmanager
    def _explained(self, doing: str, key: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError) as error:
            raise self._error(doing, key, error) from None


def _no_container(error: Exception) -> bool:
    """Whether it is the bucket itself that does not exist."""
    return any(
        word in str(error) for word in ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")
    )
