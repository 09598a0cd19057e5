"""The probe passes what keeps the promises, refuses what does not, and records nothing then."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from dstack.adapters.bucket.folder import FolderBucket
from dstack.app.maintenance.bucket_probe import FULL_PROBE, LIGHT_PROBE, ProbeEffort, check_format, ensure_probed
from dstack.core.format.keys import FORMAT_KEY
from dstack.errors import BucketError
from dstack.ports import Bucket, Put
from tests.support.buckets.kinds import KINDS, LookThenWrite, opened


class Overwriter(FolderBucket):
    """Ignores the condition, as several S3 servers do."""

    def create(self, key: str, body: bytes) -> Put:
        self.put(key, body)
        return Put.CREATED


class Liar(FolderBucket):
    """Overwrites and says that the object exists."""

    def create(self, key: str, body: bytes) -> Put:
        existed = self.get(key) is not None
        self.put(key, body)
        return Put.EXISTS if existed else Put.CREATED


class EmptyOverwriter(FolderBucket):
    """Overwrites with an empty body only, as s3fs does."""

    def create(self, key: str, body: bytes) -> Put:
        if body or self.get(key) is None:
            return super().create(key, body)
        self.put(key, body)
        return Put.EXISTS


class LateList(FolderBucket):
    def list(self, prefix: str, *, limit: int | None = None) -> Sequence[str]:
        return super().list(prefix, limit=limit)[:-1]


class OldBytes(FolderBucket):
    seen: dict[str, bytes | None] = {}

    def get(self, key: str) -> bytes | None:
        return self.seen.setdefault(key, super().get(key)) if key.endswith("once") else super().get(key)


class Undying(FolderBucket):
    def delete(self, key: str) -> None:
        return


class Unsure(FolderBucket):
    """Its answers get lost now and then, which the create rule copes with."""

    def create(self, key: str, body: bytes) -> Put:
        answer = super().create(key, body)
        return Put.UNKNOWN if answer is Put.CREATED and "race" in key else answer


class Forgetful(FolderBucket):
    def create(self, key: str, body: bytes) -> Put:
        return Put.UNKNOWN


def ensure(bucket: Bucket, effort: ProbeEffort = FULL_PROBE) -> None:
    ensure_probed(bucket, nonce="n1", now=1.5, effort=effort)


@pytest.mark.parametrize("effort", [FULL_PROBE, LIGHT_PROBE], ids=["full", "light"])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_good_bucket_passes_and_holds_nothing_but_the_record(tmp_path: Path, kind: str, effort: ProbeEffort) -> None:
    bucket = opened(kind, tmp_path / "b")
    ensure(bucket, effort)
    assert list(bucket.list("")) == [FORMAT_KEY]
    assert json.loads(bucket.get(FORMAT_KEY) or b"") == {
        "v": 1, "kind": "format", "nonce": "n1", "min_reader": 1, "min_writer": 1, "made": 1.5,
        "rounds": effort.rounds, "writers": effort.writers,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (LookThenWrite, "writers at once|shrank while"),
        (Overwriter, "does not refuse to create an object that exists"),
        (Liar, "overwrites an object that exists"),
        (EmptyOverwriter, "overwrites an object that exists"),
        (LateList, "a list does not show"),
        (OldBytes, "it does not show an object that was just created"),
        (Undying, "shows an object that was deleted"),
        (Forgetful, "does not say that a new object was created"),
    ],
)
def test_a_bucket_that_breaks_a_promise_is_refused_and_nothing_recorded(
    tmp_path: Path, broken: Callable[[Path], Bucket], reason: str
) -> None:
    bucket = broken(tmp_path / "b")
    with pytest.raises(BucketError, match=reason) as caught:
        ensure(bucket)
    assert caught.value.hint
    assert FolderBucket(tmp_path / "b").get(FORMAT_KEY) is None


def test_lost_answers_are_no_reason_to_refuse(tmp_path: Path) -> None:
    ensure(Unsure(tmp_path))
    assert check_format(FolderBucket(tmp_path))


class Counting(FolderBucket):
    calls: list[str]

    def create(self, key: str, body: bytes) -> Put:
        self.calls.append("create")
        return super().create(key, body)

    def get(self, key: str) -> bytes | None:
        self.calls.append("get")
        return super().get(key)


def test_a_bucket_that_was_probed_costs_one_read(tmp_path: Path) -> None:
    ensure(FolderBucket(tmp_path))
    bucket = Counting(tmp_path)
    bucket.calls = []
    ensure(bucket)
    assert bucket.calls == ["get"]


def test_a_new_bucket_is_no_error_for_a_reader(tmp_path: Path) -> None:
    assert check_format(FolderBucket(tmp_path / "b")) is None
    assert not (tmp_path / "b").exists()


def test_first_uses_at_the_same_time_end_with_one_record(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def use(nonce: str) -> None:
        try:
            ensure_probed(FolderBucket(tmp_path), nonce=nonce, now=1.0, effort=LIGHT_PROBE)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use, args=(f"n{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(FolderBucket(tmp_path).list("")) == [FORMAT_KEY]


def record(bucket: Bucket, **fields: object) -> None:
    good = {
        "v": 1,
        "kind": "format",
        "nonce": "n",
        "min_reader": 1,
        "min_writer": 1,
        "rounds": 1,
        "writers": 1,
        "made": 0,
    }
    bucket.create(FORMAT_KEY, json.dumps({**good, **fields}).encode())


def test_a_bucket_of_a_later_format_may_be_read_where_it_says_so(tmp_path: Path) -> None:
    bucket = FolderBucket(tmp_path)
    record(bucket, min_writer=2, more="unknown")
    assert check_format(bucket)
    with pytest.raises(BucketError, match="may be read but not written") as caught:
        ensure(bucket)
    assert "upgrade" in (caught.value.hint or "")


@pytest.mark.parametrize("fields", [{"min_reader": 2}, {"v": 2}, {"kind": "other"}, {"min_reader": "1"}])
def test_a_bucket_that_this_version_cannot_read_is_refused(tmp_path: Path, fields: dict[str, object]) -> None:
    bucket = FolderBucket(tmp_path)
    record(bucket, **fields)
    with pytest.raises(BucketError):
        check_format(bucket)
