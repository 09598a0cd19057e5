"""A bucket tried by this account: one object written, read, listed and removed, below `probe/<nonce>/`."""

from __future__ import annotations

from contextlib import suppress

from dstack.app.maintenance.bucket_probe import check_format
from dstack.core.format.keys import probe_folder
from dstack.errors import BucketError
from dstack.ports import Bucket, Put


def try_bucket(bucket: Bucket, nonce: str) -> float:
    """Write, read and list one object -> the time of day by the store's own clock, in seconds since the epoch.

    `nonce` is fresh randomness of this caller. Nothing is left behind. Raises BucketError with what the account may
    not do, and with whatever the store says.
    """
    folder = probe_folder(nonce)
    key, body = f"{folder}try", nonce.encode()
    try:
        written = bucket.create(key, body)
        if bucket.get(key) != body:
            if written is not Put.CREATED:
                raise BucketError(f"nothing can be written: {bucket.trouble or 'the store gave no answer'}")
            raise BucketError("an object that was just written cannot be read")
        listed = [each for each in bucket.survey(folder) if each.key == key]
        if not listed:
            raise BucketError("a list does not show an object that was just written")
    finally:
        with suppress(BucketError):
            bucket.delete(key)
    return listed[0].modified


def store_time(bucket: Bucket, nonce: str, *, own: float) -> float:
    """The time of day by the store's clock, by which the ages of objects are told: `own`, the time by this machine's
    clock, may be years off. It is the answer all the same for a bucket that is not used yet or may not be written to.
    """
    if check_format(bucket) is None:
        return own
    try:
        return try_bucket(bucket, nonce)
    except BucketError:
        return own
