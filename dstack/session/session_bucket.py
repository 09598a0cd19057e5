"""The bucket of a session: named by settings, opened at the first use, probed before the first write."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any

from dstack.adapters.bucket.opener import missing_path, open_bucket
from dstack.adapters.bucket.registry import backend_of
from dstack.adapters.bucket.remote_errors import redact_url
from dstack.adapters.bucket.stall_notice import StallNoticeBucket
from dstack.app.maintenance.bucket_probe import (
    FormatRecord,
    ProbeEffort,
    check_format,
    effort_for,
    ensure_probed,
    require_writer,
)
from dstack.errors import BucketError
from dstack.ports import Bucket


class Storage:
    """A bucket by URL and storage options.

    With `must_exist` a bucket in a folder has to exist: without its file system mounted, all data would go to another
    disk. `notify` hears, from any thread, of a bucket without an answer.
    """

    _format: FormatRecord | None = None

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any],
        *,
        home: Path,
        notify: Callable[[str], None],
        must_exist: bool = False,
    ) -> None:
        self._url = url
        self._options = options
        self._home = home
        self._notify = notify
        self._must_exist = must_exist

    @cached_property
    def bucket(self) -> Bucket:
        """The bucket, for reading; a look at a new bucket creates nothing.

        Raises BucketError for a bucket of a later format, and as `require_folder` does.
        """
        bucket = StallNoticeBucket(
            open_bucket(self._url, self._options, self._home), redact_url(self._url), self._notify
        )
        self._format = check_format(bucket)
        # A bucket with a format is in use, and so its folder is there.
        if self._format is None:
            self.require_folder()
        return bucket

    def require_folder(self) -> None:
        """Raise BucketError where the bucket is a missing folder, with `must_exist`."""
        if self._must_exist and (path := missing_path(self._url, self._home)):
            hint = f"mount it, or make it: dstack init --bucket {quote(path)}"
            raise BucketError(f"the bucket {path} does not exist here", hint=hint)

    @property
    def reads_at_once(self) -> int:
        """The number of reads to make at the same time."""
        return backend_of(self._url).properties.reads_at_once

    def probe(self) -> ProbeEffort | None:
        """Make sure, before the first write, that the bucket excludes concurrent writers -> the effort of the probe.

        None for a bucket probed before. Raises BucketError for a bucket without exclusion of writers, and for a bucket
        that only a later version may write to.
        """
        bucket = self.bucket
        if self._format is not None:
            require_writer(self._format)
            return None
        effort = effort_for(backend_of(self._url).properties.exclusion)
        ensure_probed(bucket, nonce=os.urandom(16).hex(), now=time.time(), effort=effort)
        return effort

    def abort_uploads(self, prefix: str, *, now: float) -> int:
        """End uploads in parts below `prefix`, broken off long ago -> the number of ended uploads.

        `now` is the time of day by the store's clock.
        """
        from dstack.adapters.bucket.opener import abort_uploads

        return abort_uploads(self._url, self._options, prefix, now=now)
