"""From the text under `bucket:` to a `Bucket`. Imports no library without need."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from dstack.adapters.bucket.registry import backend_of
from dstack.adapters.bucket.remote_errors import NAME_ANOTHER_HINT, redact_url
from dstack.errors import BucketError
from dstack.ports import Bucket

UPLOAD_ABANDONED_S = 24 * 3600.0
"""Seconds after which an unfinished upload counts as interrupted."""


def open_bucket(url: str, options: Mapping[str, Any], home: str | os.PathLike[str]) -> Bucket:
    """The bucket at `url`: a path, `~/path` (below `home`), or a URL of a scheme in the registry or known to fsspec.

    A relative path counts from the current folder. `options` are fsspec's storage options for that kind of URL. Reads
    and writes nothing. Raises BucketError when the URL makes no sense, or naming the extra that has to be installed.
    """
    if not url.strip() or "\0" in url:
        raise BucketError("the URL of the bucket is empty", hint=NAME_ANOTHER_HINT)
    # fsspec's own syntax; obstore and the folder know nothing of it.
    if "::" in url:
        raise BucketError(
            f"{redact_url(url)}: chained URLs cannot be a bucket: their caches show old state", hint=NAME_ANOTHER_HINT
        )
    backend = backend_of(url)
    try:
        return backend.open(url, options, os.fspath(home))
    except ImportError as error:
        hint = f"in dstack's checkout: pip install '.[{backend.properties.extra}]'"
        missing = error.name or str(error)
        raise BucketError(f"{redact_url(url)} needs a library that is not installed: {missing}", hint=hint) from None


def bucket_path(url: str, home: str | os.PathLike[str]) -> str:
    """The absolute path of the bucket; "" for a kind without a path. Raises BucketError as `open_bucket` does."""
    path = backend_of(url).path
    return path(url, os.fspath(home)) if path else ""


def missing_path(url: str, home: str | os.PathLike[str]) -> str:
    """The path of the bucket where nothing lies there; "" where something does, and for a kind without a path."""
    path = bucket_path(url, home)
    try:
        if path:
            os.stat(path)
    except FileNotFoundError:
        return path
    except OSError:
        return ""  # reading the bucket says what is wrong
    return ""


def private_path(url: str, home: str | os.PathLike[str]) -> str:
    """The path of a bucket for one account alone; "" for every other bucket."""
    backend = backend_of(url)
    path = bucket_path(url, home)
    return path if backend.is_private is not None and backend.is_private(path) else ""


def abort_uploads(
    url: str,
    options: Mapping[str, Any],
    prefix: str,
    *,
    now: float,
    older_than: float = UPLOAD_ABANDONED_S,
) -> int:
    """End the uploads below `prefix` begun more than `older_than` seconds ago -> their number.

    `now` is the time of day by the store's clock. 0 for a kind of bucket without such uploads. Raises BucketError when
    the store refuses.
    """
    abort = backend_of(url).abort_uploads
    return abort(url, options, prefix, now - older_than) if abort else 0
