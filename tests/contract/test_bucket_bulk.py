"""Bulk data that is sent in parts: whole or absent, verified by who reads, in bounded memory."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dstack.adapters.bucket.object_stores import obstore_store
from dstack.errors import BucketError
from dstack.ports import Bucket, Put
from dstack.runner.store.pieces import LARGE_PIECE_BYTES
from tests.support.buckets.kinds import KINDS, opened
from tests.support.buckets.object_stores import ministack
from tests.support.checkout import ROOT

MB = 1 << 20


@pytest.fixture(params=sorted(KINDS))
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    return opened(request.param, tmp_path / "bucket")


def blocks(count: int, *, seed: bytes = b"") -> Iterator[bytes]:
    """`count` different blocks of 1 MB."""
    for index in range(count):
        yield hashlib.sha256(b"%d %b" % (index, seed)).digest() * (MB // 32)


def digest(chunks: Iterator[bytes]) -> str:
    found = hashlib.sha256()
    for chunk in chunks:
        found.update(chunk)
    return found.hexdigest()


SIZES = (
    obstore_store.MULTIPART_FROM_BYTES // MB - 1,
    obstore_store.MULTIPART_FROM_BYTES // MB,
    3 * obstore_store.PART_BYTES // MB + 1,
)


@pytest.mark.parametrize("size", SIZES)
def test_a_large_object_comes_back_as_it_was(bucket: Bucket, size: int) -> None:
    assert bucket.create_from("a/big", blocks(size)) is Put.CREATED
    assert list(bucket.list("a/")) == ["a/big"]
    assert digest(bucket.read("a/big", 0, size * MB)) == digest(blocks(size))
    middle = b"".join(bucket.read("a/big", 5 * MB - 3, 9 * MB))
    whole = b"".join(blocks(16))
    assert middle == whole[5 * MB - 3 : 14 * MB - 3]
    with pytest.raises(BucketError, match="a/big"):
        list(bucket.read("a/big", 0, size * MB + 1))


def test_a_large_object_that_exists_is_left_as_it_is(bucket: Bucket) -> None:
    bucket.create("a/big", b"first")
    assert bucket.create_from("a/big", blocks(40)) is Put.EXISTS
    assert bucket.get("a/big") == b"first"


@pytest.mark.parametrize("error", [OSError(5, "the source broke"), ValueError("the source broke")])
def test_nothing_is_left_of_a_large_object_whose_source_fails(bucket: Bucket, error: Exception) -> None:
    def pieces() -> Iterator[bytes]:
        yield from blocks(70)
        raise error

    with pytest.raises(type(error), match="the source broke"):
        bucket.create_from("a/big", pieces())
    assert bucket.get("a/big") is None
    assert list(bucket.list("")) == []
    assert bucket.create_from("a/big", blocks(40)) is Put.CREATED


def test_a_large_object_is_not_seen_before_it_is_whole(bucket: Bucket) -> None:
    def pieces() -> Iterator[bytes]:
        for number, block in enumerate(blocks(60)):
            if number % 10 == 9:
                looked.append(others.submit(lambda: (bucket.get("a/big"), list(bucket.list("")))).result())
            yield block

    looked: list[object] = []
    with ThreadPoolExecutor(1) as others:
        assert bucket.create_from("a/big", pieces()) is Put.CREATED
    assert looked == [(None, [])] * 6
    assert digest(bucket.read("a/big", 0, 60 * MB)) == digest(blocks(60))


def test_two_who_bring_the_same_large_bytes_leave_them_once(bucket: Bucket) -> None:
    answers: list[Put] = []
    together = threading.Barrier(2)

    def bring() -> None:
        together.wait()
        answers.append(bucket.create_from("a/big", blocks(40)))

    threads = [threading.Thread(target=bring) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 2
    assert Put.CREATED in answers
    assert digest(bucket.read("a/big", 0, 40 * MB)) == digest(blocks(40))


def test_no_parts_are_left_in_the_store_when_a_source_fails(tmp_path: Path) -> None:
    store = ministack()
    bucket = store.bucket(tmp_path / "parts")

    def pieces() -> Iterator[bytes]:
        yield from blocks(100)
        assert store.uploads(tmp_path / "parts") == 1
        raise ValueError("the source broke")

    with pytest.raises(ValueError, match="the source broke"):
        bucket.create_from("a/big", pieces())
    assert store.uploads(tmp_path / "parts") == 0


MEMORY = """
import resource, sys
from pathlib import Path
from tests.support.buckets.kinds import KINDS
from tests.contract.test_bucket_bulk import MB
from tests.contract.test_bucket_bulk import blocks
bucket = KINDS["s3-ministack"](Path(sys.argv[1]))
bucket.create("warm", b"x")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
bucket.create_from("a/big", blocks(700))
assert sum(map(len, bucket.read("a/big", 0, 700 * MB))) == 700 * MB
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def test_bulk_data_does_not_pass_through_memory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 250


def test_the_limits_of_a_store_hold_for_the_largest_piece() -> None:
    """S3 takes parts of 5 MiB to 5 GiB, 10,000 of them for an object."""
    assert LARGE_PIECE_BYTES / obstore_store.PART_BYTES <= 10_000
    assert 5 * MB <= obstore_store.PART_BYTES <= obstore_store.MULTIPART_FROM_BYTES
