"""Files that are cut into pieces: a cut on the way costs one piece, and every piece is verified before it is there."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from dstack.adapters.artifact_folder import SafeFolder
from dstack.adapters.bucket.folder import FolderBucket
from dstack.app.maintenance.blocking_driver import BlockingPerformer
from dstack.app.protocol.liveness import Observer
from dstack.app.protocol.settlement import is_whole
from dstack.app.transfer.artifacts import collect_artifacts, pull, stage_inputs
from dstack.core.artifacts import manifests
from dstack.core.artifacts.manifests import BadManifestError
from dstack.core.artifacts.pieces import MAX_PIECES
from dstack.core.format.keys import ProjectKeys
from dstack.core.format.records import Result
from dstack.errors import BucketError, HostError
from dstack.model import Fingerprint, Manifest, RunId, RunName
from dstack.ports import Put
from dstack.runner.store import pieces
from tests.support.code.trees import described
from tests.support.runners.inside import NONCE, InsideRunner
from tests.support.runners.orders import job_order

KEYS = ProjectKeys.of("p").job(Fingerprint("f"), 1).attempt(1)
MB = 1 << 20


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "LARGE_PIECE_BYTES", MB)


class Cut(FolderBucket):
    """A folder whose connection breaks after some packs."""

    left = 1000

    def create_from(self, key: str, chunks: Iterable[bytes]) -> Put:
        if self.left == 0:
            raise BucketError("the connection broke")
        self.left -= 1
        return super().create_from(key, chunks)


def host_with(folder: Path, **files: int) -> InsideRunner:
    host = InsideRunner(folder)
    (host.work / "out").mkdir()
    for name, size in files.items():
        (host.work / "out" / name).write_bytes(os.urandom(size))
    return host


def collected(host: InsideRunner, bucket: FolderBucket) -> Manifest:
    asyncio.run(collect_artifacts(host, bucket, KEYS, NONCE, partial=False))  # type: ignore[arg-type]
    return stored_manifest(bucket)


def stored_manifest(bucket: FolderBucket) -> Manifest:
    return manifests.decode(KEYS.manifest, bucket.get(KEYS.manifest) or b"")


class Forgetful(FolderBucket):
    """Gives no answer to the first write of each pack, after a part of it; the second time says that it is there."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.asked: set[str] = set()

    def create_from(self, key: str, chunks: Iterable[bytes]) -> Put:
        if key not in self.asked:
            self.asked.add(key)
            next(iter(chunks))
            return Put.UNKNOWN
        super().create_from(key, chunks)
        return Put.EXISTS


def test_progress_is_right_when_a_pack_is_read_in_part_and_again(tmp_path: Path) -> None:
    host, bucket = host_with(tmp_path / "host", large=3 * MB), Forgetful(tmp_path / "bucket")
    seen: list[tuple[int, int]] = []

    async def collect() -> None:
        await collect_artifacts(
            host,  # type: ignore[arg-type]  # a part of a runner
            bucket,
            KEYS,
            NONCE,
            partial=False,
            progress=lambda *each: seen.append(each),
        )

    asyncio.run(collect())
    assert seen[-1] == (3 * MB, 3 * MB)
    assert all(0 <= done <= total for done, total in seen)


SIZES = {"just": MB, "more": MB + 1, "even": 4 * MB, "odd": 5 * MB + 77, "small": 9}


def test_cut_files_come_back_as_they_were(tmp_path: Path) -> None:
    host, bucket = host_with(tmp_path / "host", **SIZES), FolderBucket(tmp_path / "bucket")
    collected(host, bucket)
    counts = {entry.path: len(entry.pieces) for entry in stored_manifest(bucket).entries}
    assert counts == {"out": 0, "out/just": 0, "out/more": 2, "out/even": 4, "out/odd": 6, "out/small": 0}
    assert len(bucket.list(KEYS.pack(""))) == 2 + 4 + 6 + 1
    with SafeFolder(tmp_path / "pulled") as tree:
        asyncio.run(pull(bucket, KEYS, stored_manifest(bucket), tree))
    other = InsideRunner(tmp_path / "other")

    async def stage() -> None:
        inputs = [("prepare", KEYS, stored_manifest(bucket))]
        entries = await stage_inputs(other, bucket, inputs)  # type: ignore[arg-type]
        await other.prepare(job_order(inputs=tuple(entries)))

    asyncio.run(stage())
    assert described(tmp_path / "pulled") == described(host.work) == described(other.work)


def test_a_result_that_lacks_one_piece_is_not_whole(tmp_path: Path) -> None:
    host, bucket = host_with(tmp_path / "host", **SIZES), FolderBucket(tmp_path / "bucket")
    collected(host, bucket)
    body = bucket.get(KEYS.manifest) or b""
    digest = manifests.content_digest(manifests.decode(KEYS.manifest, body))
    result = Result(
        nonce="n", attempt=1, manifest=hashlib.sha256(body).hexdigest(), digest=digest,
        run=RunId("r"), name=RunName("r"),
    )  # fmt: skip
    performer = BlockingPerformer(
        bucket, Observer(bucket, ProjectKeys.of("p"), sure=lambda _: None, boottime=float), str
    )
    assert performer.take(is_whole(KEYS, result))
    for key in bucket.list(KEYS.pack("")):
        piece = b"".join(
            bucket.read(key, 0, next(each.size for each in bucket.survey(KEYS.pack("")) if each.key == key))
        )
        bucket.delete(key)
        assert not performer.take(is_whole(KEYS, result))
        bucket.create_from(key, [piece])
    performer.close()


def test_after_a_cut_only_the_pieces_that_lack_are_sent(tmp_path: Path) -> None:
    host, bucket = host_with(tmp_path / "host", large=20 * MB), Cut(tmp_path / "bucket")
    bucket.left = 12
    with pytest.raises(BucketError, match="broke"):
        collected(host, bucket)
    there = set(bucket.list(KEYS.pack("")))
    assert 9 <= len(there) <= 12
    assert bucket.get(KEYS.manifest) is None
    host.packs_read.clear()
    bucket.left = 1000
    collected(host, bucket)
    assert len(host.packs_read) == 20 - len(there)
    assert not {KEYS.pack(name) for name in host.packs_read} & there


def test_a_piece_that_is_not_what_was_hashed_never_gets_into_the_bucket(tmp_path: Path) -> None:
    host, bucket = host_with(tmp_path / "host", large=3 * MB), FolderBucket(tmp_path / "bucket")
    host.damage = lambda piece: bytes([piece[0] ^ 1]) + piece[1:]
    with pytest.raises(HostError, match="changed on the way"):
        collected(host, bucket)
    assert list(bucket.list("")) == []


@pytest.mark.parametrize("change", ["append", "cut", "flip"])
def test_a_file_that_changes_between_its_pieces_is_refused(tmp_path: Path, change: str) -> None:
    host, bucket = host_with(tmp_path / "host", large=3 * MB), FolderBucket(tmp_path / "bucket")
    asyncio.run(host.manifest(NONCE))
    with (host.work / "out/large").open("r+b") as file:
        if change == "append":
            file.seek(0, os.SEEK_END)
            file.write(b"x")
        elif change == "cut":
            file.truncate(3 * MB - 1)
        else:
            file.seek(2 * MB + 5)
            file.write(b"flipped")
    with pytest.raises(HostError, match="changed"):
        collected(host, bucket)
    assert bucket.get(KEYS.manifest) is None


def test_a_damaged_piece_is_found_when_it_is_read(tmp_path: Path) -> None:
    host, bucket = host_with(tmp_path / "host", large=3 * MB), FolderBucket(tmp_path / "bucket")
    collected(host, bucket)
    key = bucket.list(KEYS.pack(""))[1]
    bucket.put(key, bytes(MB))
    with SafeFolder(tmp_path / "pulled") as tree, pytest.raises(BucketError, match="damaged"):
        asyncio.run(pull(bucket, KEYS, stored_manifest(bucket), tree))
    assert not (tmp_path / "pulled/out/large").exists()


def test_the_digest_of_the_content_does_not_depend_on_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = host_with(tmp_path / "host", large=3 * MB)
    cut = collected(host, FolderBucket(tmp_path / "one"))
    (host.spool / "manifest.jsonl").unlink()
    monkeypatch.setattr(pieces, "LARGE_PIECE_BYTES", 1 << 30)
    whole = collected(host, FolderBucket(tmp_path / "two"))
    assert cut != whole
    assert manifests.content_digest(cut) == manifests.content_digest(whole)


HASH = hashlib.sha256(b"x").hexdigest()
GOOD: dict[str, Any] = {
    "path": "a",
    "kind": "file",
    "mode": 0o644,
    "size": 10,
    "sha256": HASH,
    "piece": 4,
    "pieces": [HASH] * 3,
}


def test_pieces_that_fit_are_read_as_they_were_written() -> None:
    entry = manifests.entry_from_wire(GOOD)
    body = manifests.encode(manifests.manifest_of([entry], partial=False))
    assert json.loads(body.splitlines()[1]) == GOOD
    assert manifests.decode("k", body).entries == (entry,)


@pytest.mark.parametrize(
    "change",
    [
        {"pieces": [HASH] * 2},
        {"pieces": [HASH] * 4},
        {"pieces": []},
        {"pieces": [HASH], "piece": 10},
        {"pieces": ["../etc"] * 3},
        {"pieces": HASH},
        {"pieces": [1, 2, 3]},
        {"piece": 0},
        {"piece": -4},
        {"piece": True, "size": 3},
        {"piece": 1.5},
        {"piece": None},
        {"size": 0},
        {"size": 13},
        {"size": 8},
        {"size": 1 << 60},
        {"sha256": "x"},
        {"piece": 1, "size": MAX_PIECES + 1, "pieces": [HASH] * (MAX_PIECES + 1)},
    ],
    ids=lambda change: " ".join(f"{name}={value!s:.20}" for name, value in change.items()),
)
def test_forged_pieces_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadManifestError):
        manifests.entry_from_wire(GOOD | change)
