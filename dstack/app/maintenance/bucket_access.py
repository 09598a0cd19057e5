"""A bucket tried by this account: one object written, read, listed and removed, below `probe/<nonce>/`."""

from __future__ import annotations

from contextlib import suppress

from dstack.app.maintenance.bucket_probe import check_format
from dstack.core.format.keys import probe_folder
from dstack.errors import BucketError
from dstack.ports import Bucket, Put


def try_bucket(bucket: Bucket, nonce: str) -> float:
    """Write, read and list an object -> the time of day by the store's own clock, in seconds since the epoch.

    `nonce` is fresh randomness of this caller. Nothing is left behind. Raises BucketError with the actions denied to
    the account, and with all errors of the store.
    """
    folder = probe_folder(nonce)
    key, body = f"{folder}try", nonce.encode()
    try:
        answer = bucket.create(key, body)
        if bucket.get(key) != body:
            if answer is not Put.CREATED:
                raise BucketError(f"nothing can be written: {bucket.trouble or 'the store gave no answer'}")
            raise BucketError("an object that was just written cannot be read")
        listed = [each for each in bucket.survey(folder) if each.key == key]
        if not listed:
            raise BucketError("a list does not show an object that was just written")
    finally:
        # The trial is decided by now, and every reader ignores leftovers below `probe/`.
        with suppress(BucketError):
            bucket.delete(key)
    return listed[0].modified


def store_time(bucket: Bucket, nonce: str, *, own: float) -> float:
    """The time of day by the store's clock, for the ages of objects: `own`, the time by this machine's clock, may be
    years off.

    `own` is the answer all the same for an unused bucket and for a bucket without write access.
    """
    if check_format(bucket) is None:
        return own
    try:
        return try_bucket(bucket, nonce)
    except BucketError:
        return own
