"""Every kind of bucket. A new kind is a file beside this module, and a line here: docs/guides/add-a-bucket.md."""

from __future__ import annotations

import re

from dstack.adapters.bucket.backend import Backend
from dstack.adapters.bucket.folder import FOLDER_BACKEND
from dstack.adapters.bucket.fsspec_store import FSSPEC_BACKEND
from dstack.adapters.bucket.object_stores.azure import AZURE_BACKEND
from dstack.adapters.bucket.object_stores.gcs import GCS_BACKEND
from dstack.adapters.bucket.object_stores.s3 import S3_BACKEND

BACKENDS: tuple[Backend, ...] = (FOLDER_BACKEND, S3_BACKEND, GCS_BACKEND, AZURE_BACKEND, FSSPEC_BACKEND)
"""FSSPEC_BACKEND declares no scheme, and opens the URLs of all undeclared schemes."""
BY_SCHEME = {scheme: backend for backend in BACKENDS for scheme in backend.properties.schemes}
# All kinds together: a wrong scheme in front of the right options must not give their secrets away.
SECRET_OPTIONS = frozenset().union(*(backend.properties.secret_options for backend in BACKENDS))
"""The secret options of all kinds together: a name with secrets in one kind goes to hosts for none."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def backend_of(url: str) -> Backend:
    """The backend of a URL by its scheme, in upper or lower case. A text without a scheme is a path, thus a folder."""
    match = _SCHEME.match(url)
    return BY_SCHEME.get(match.group(1).lower(), FSSPEC_BACKEND) if match else FOLDER_BACKEND


def is_path(url: str) -> bool:
    """Whether the bucket is a path, seen by a host only where its file system is mounted."""
    return backend_of(url).properties.is_path
