"""From what the user wrote as `bucket:` to a `Bucket`. Imports no library that the URL does not need."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from dstack.adapters.bucket.folder import FolderBucket
from dstack.adapters.bucket.remote_errors import redacted
from dstack.app.maintenance.bucket_probe import FULL, LIGHT, Effort
from dstack.errors import BucketError
from dstack.ports import Bucket

EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "az": "azure",
    "abfs": "azure",
    "abfss": "azure",
    "adl": "azure",
}
"""URL scheme -> the extra of this package that brings its libraries."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_HINT = "name a folder, s3://, gs:// or az:// as `bucket:` in .dstack/config.yaml"


def open_bucket(url: str, options: Mapping[str, Any], home: str | os.PathLike[str]) -> Bucket:
    """The bucket at `url`: a path, `~/path` (below `home`), `file://`, `s3://`, `gs://`, `az://`, or any fsspec URL.

    A relative path counts from the current folder. `options` are fsspec's storage options for that kind of URL. Reads
    and writes nothing. Raises BucketError when the URL makes no sense, or naming the extra that has to be installed.
    """
    match = _SCHEME.fullmatch(url)
    if not url.strip() or "\0" in url:
        raise BucketError("the URL of the bucket is empty", hint=_HINT)
    if "::" in url:
        raise BucketError(f"{redacted(url)}: chained URLs cannot be a bucket: their caches show old state", hint=_HINT)
    if match is None:
        return _folder(os.path.join(home, url[2:]) if url.startswith("~/") or url == "~" else url, options)
    scheme, rest = match.group(1).lower(), match.group(2)
    if scheme in ("file", "local"):
        path = rest.removeprefix("localhost") if rest.startswith("localhost/") else rest
        if not path.startswith("/"):
            raise BucketError(f"{redacted(url)} names no folder of this machine", hint="write file:///path")
        return _folder(path, options)
    return _remote(url, options, EXTRAS.get(scheme))


def missing_folder(bucket: Bucket) -> str:
    """The folder of a bucket that lies in one and is not there; "" where there is something, or no folder is meant."""
    if not isinstance(bucket, FolderBucket):
        return ""
    try:
        os.stat(bucket.path)
    except FileNotFoundError:
        return bucket.path
    except OSError:
        return ""  # reading it says what is wrong
    return ""


def private_folder(bucket: Bucket) -> str:
    """The folder of a bucket that only one account can use; "" for every other bucket."""
    return bucket.path if isinstance(bucket, FolderBucket) and bucket.is_private() else ""


def probe_effort(bucket: Bucket) -> Effort:
    """How hard a bucket of this kind is to be probed at first use."""
    return LIGHT if isinstance(bucket, FolderBucket) else FULL


def at_once(bucket: Bucket) -> int:
    """How many reads at a time a bucket of this kind is best asked for: behind a network each is a round trip."""
    return 1 if isinstance(bucket, FolderBucket) else 16


def _folder(path: str, options: Mapping[str, Any]) -> FolderBucket:
    if options:
        names = ", ".join(sorted(options))
        raise BucketError(f"a bucket in a folder takes no storage options, but there are: {names}", hint="remove them")
    return FolderBucket(path)


def _remote(url: str, options: Mapping[str, Any], extra: str | None) -> Bucket:
    try:
        if extra is None:
            from dstack.adapters.bucket.fsspec_store import open_fsspec

            return open_fsspec(url, options)
        from dstack.adapters.bucket.obstore_store import open_obstore

        return open_obstore(url, options)
    except ImportError as error:
        missing = error.name or str(error)
        hint = (
            f"in dstack's checkout: pip install '.[{extra or 's3'}]'"
            if extra or missing == "fsspec"
            else "install the library it names"
        )
        raise BucketError(f"{redacted(url)} needs a library that is not installed: {missing}", hint=hint) from None
