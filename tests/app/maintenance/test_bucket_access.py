"""A bucket is judged by what it does with one object, and nothing of that is left behind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dstack.adapters.bucket.folder import FolderBucket
from dstack.app.maintenance.bucket_access import store_time, try_bucket
from dstack.app.maintenance.bucket_probe import LIGHT_PROBE, ensure_probed
from dstack.core.format.keys import FORMAT_KEY
from dstack.errors import BucketError
from dstack.ports import Bucket, Listed, Put
from tests.support.buckets.kinds import KINDS, opened

YEARS = 20 * 365.25 * 86400


class ReadOnly(FolderBucket):
    def create(self, key: str, body: bytes) -> Put:
        return Put.UNKNOWN


class Forbidden(FolderBucket):
    def create(self, key: str, body: bytes) -> Put:
        raise BucketError("403 AccessDenied")


class WriteOnly(FolderBucket):
    def get(self, key: str) -> bytes | None:
        return None if key.startswith("probe/") else super().get(key)


class Unlisted(FolderBucket):
    def survey(self, prefix: str) -> Iterator[Listed]:
        return iter(())


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_good_bucket_says_what_time_it_is_and_keeps_nothing(tmp_path: Path, kind: str) -> None:
    bucket = opened(kind, tmp_path / "b")
    ensure_probed(bucket, nonce="n", now=1.0, effort=LIGHT_PROBE)
    first, second = try_bucket(bucket, "one"), store_time(bucket, "two", own=7.0)
    assert abs(second - first) < 120
    assert list(bucket.list("")) == [FORMAT_KEY]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (ReadOnly, "nothing can be written"),
        (Forbidden, "403 AccessDenied"),
        (WriteOnly, "that was just written cannot be read"),
        (Unlisted, "a list does not show"),
    ],
)
def test_what_the_account_may_not_do_is_said(tmp_path: Path, broken: Callable[[Path], Bucket], reason: str) -> None:
    ensure_probed(FolderBucket(tmp_path), nonce="n", now=1.0, effort=LIGHT_PROBE)
    bucket = broken(tmp_path)
    with pytest.raises(BucketError, match=reason):
        try_bucket(bucket, "one")
    assert store_time(bucket, "two", own=7.0) == 7.0
    assert list(FolderBucket(tmp_path).list("")) == [FORMAT_KEY]


@pytest.mark.parametrize("off", [YEARS, -YEARS, 0.0])
def test_the_time_of_a_folder_is_that_of_its_file_system(tmp_path: Path, off: float) -> None:
    ensure_probed(FolderBucket(tmp_path / "b"), nonce="n", now=1.0, effort=LIGHT_PROBE)
    beside = tmp_path / "beside"
    beside.touch()
    true = os.stat(beside).st_mtime
    assert abs(store_time(FolderBucket(tmp_path / "b"), "one", own=true + off) - true) < 60


def test_a_bucket_that_nobody_uses_is_not_written_to(tmp_path: Path) -> None:
    assert store_time(FolderBucket(tmp_path / "b"), "one", own=7.0) == 7.0
    assert not (tmp_path / "b").exists()
