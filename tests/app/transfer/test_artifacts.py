"""Artifacts from a host to the bucket, to another host and to a folder: real files on both sides."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from dstack.adapters.artifact_folder import SafeFolder
from dstack.adapters.bucket.folder import FolderBucket
from dstack.app.effects.answers import Collected
from dstack.app.transfer.artifacts import collect_artifacts, pull, stage_inputs
from dstack.core.artifacts import manifests
from dstack.core.format.keys import AttemptKeys, ProjectKeys
from dstack.errors import BucketError, DstackError, HostError, UsageError
from dstack.model import Fingerprint, Manifest
from dstack.ports import Bucket, Put
from tests.support.buckets.memory import MemoryBucket
from tests.support.checkout import ROOT
from tests.support.code.trees import described, many, odd
from tests.support.runners.inside import NONCE, InsideRunner
from tests.support.runners.orders import job_order

KEYS = ProjectKeys.of("p").job(Fingerprint("f"), 1).attempt(1)
OTHER = ProjectKeys.of("p").job(Fingerprint("f2"), 1).attempt(1)


def collected(runner: InsideRunner, bucket: Bucket, keys: AttemptKeys = KEYS, *, partial: bool = False) -> Manifest:
    """The manifest that stands in the bucket after the artifacts were collected."""
    named = asyncio.run(collect_artifacts(runner, bucket, keys, NONCE, partial=partial))  # type: ignore[arg-type]
    manifest = manifests.decode(keys.manifest, bucket.get(keys.manifest) or b"", sha256=named.manifest)
    assert manifests.content_digest(manifest) == named.digest
    return manifest


def pulled(bucket: Bucket, target: Path) -> None:
    body = bucket.get(KEYS.manifest)
    assert body is not None
    with SafeFolder(target) as tree:
        asyncio.run(pull(bucket, KEYS, manifests.decode(KEYS.manifest, body), tree))


def staged(runner: InsideRunner, bucket: Bucket, keys: AttemptKeys = KEYS) -> None:
    manifest = manifests.decode(keys.manifest, bucket.get(keys.manifest) or b"")

    async def steps() -> None:
        entries = await stage_inputs(runner, bucket, [("prepare", keys, manifest)])  # type: ignore[arg-type]
        await runner.prepare(job_order(inputs=tuple(entries)))

    asyncio.run(steps())


class Counting(FolderBucket):
    """A folder that counts what would be requests to an object store."""

    requests = 0

    def create_from(self, key: str, chunks: Iterable[bytes]) -> Put:
        self.requests += 1
        return super().create_from(key, chunks)

    def read(self, key: str, offset: int, length: int) -> Iterator[bytes]:
        self.requests += 1
        return super().read(key, offset, length)

    def get(self, key: str) -> bytes | None:
        self.requests += 1
        return super().get(key)


def test_everything_comes_back_as_it_was(tmp_path: Path) -> None:
    """10,000 small files, one of 64 MB, empty folders, links, modes and odd names: host, bucket, folder, other host.

    In few requests, however many files there are.
    """
    host, other = InsideRunner(tmp_path / "host"), InsideRunner(tmp_path / "other")
    odd(host.work / "out")
    many(host.work / "out" / "many", 10_000, 4096)
    with (host.work / "out" / "large").open("wb") as file:
        for index in range(64):
            file.write(hashlib.sha256(str(index).encode()).digest() * 32768)
    bucket = Counting(tmp_path / "bucket")
    collected(host, bucket)
    assert bucket.requests < 15
    bucket.requests = 0
    pulled(bucket, tmp_path / "pulled")
    staged(other, bucket)
    assert bucket.requests < 15
    before = described(host.work)
    assert len(before) > 10_100
    assert described(tmp_path / "pulled") == before
    assert described(other.work) == before
    assert len(bucket.list(KEYS.folder)) == 5


def test_the_manifest_comes_after_all_that_it_names(tmp_path: Path) -> None:
    host, bucket = InsideRunner(tmp_path), MemoryBucket()
    many(host.work / "out", 30, 1 << 20)
    (host.work / "out" / "large").write_bytes(os.urandom(5 << 20))
    collected(host, bucket)
    assert bucket.order[-1] == KEYS.manifest
    assert len(bucket.order) == 4


def test_a_second_collector_writes_nothing_and_sends_nothing(tmp_path: Path) -> None:
    host, bucket = InsideRunner(tmp_path), MemoryBucket()
    many(host.work / "out", 10, 4096)
    first = collected(host, bucket)
    before = dict(bucket.objects)
    assert collected(host, bucket) == first
    assert bucket.objects == before
    assert len(host.packs_read) == 1


def test_two_collectors_at_once_leave_what_one_would(tmp_path: Path) -> None:
    host, bucket = InsideRunner(tmp_path), FolderBucket(tmp_path / "bucket")
    many(host.work / "out", 20, 1 << 20)

    async def both() -> None:
        await asyncio.gather(*(collect_artifacts(host, bucket, KEYS, NONCE, partial=False) for _ in range(2)))  # type: ignore[arg-type]

    asyncio.run(both())
    pulled(bucket, tmp_path / "pulled")
    assert described(tmp_path / "pulled") == described(host.work)


def test_a_collector_that_was_cut_off_is_carried_on(tmp_path: Path) -> None:
    """Packs that arrived before are not sent again, and the manifest is the same as without the cut."""
    host, bucket = InsideRunner(tmp_path), MemoryBucket()
    many(host.work / "out", 40, 1 << 20)
    collected(host, bucket)
    whole = dict(bucket.objects)
    del bucket.objects[KEYS.manifest], bucket.objects[bucket.order[0]]
    host.packs_read.clear()
    collected(host, bucket)
    assert bucket.objects == whole
    assert host.packs_read == [bucket.order[0].rsplit("/", 1)[1]]


class ManifestReads(MemoryBucket):
    """Counts reads of the manifest; `standing` is the one that another collector has created just before."""

    def __init__(self, standing: bytes | None = None) -> None:
        super().__init__()
        self.manifest_reads = 0
        self.standing = standing

    def create(self, key: str, body: bytes) -> Put:
        if key == KEYS.manifest and self.standing is not None:
            super().create(key, self.standing)
        return super().create(key, body)

    def get(self, key: str) -> bytes | None:
        self.manifest_reads += key == KEYS.manifest
        return super().get(key)


def named(host: InsideRunner, bucket: MemoryBucket) -> Collected:
    return asyncio.run(collect_artifacts(host, bucket, KEYS, NONCE, partial=False))  # type: ignore[arg-type]


def test_a_manifest_is_named_by_its_own_bytes_and_not_read_again(tmp_path: Path) -> None:
    host, bucket = InsideRunner(tmp_path), ManifestReads()
    many(host.work / "out", 20, 4096)
    first = named(host, bucket)
    assert bucket.manifest_reads == 0
    body = bucket.objects[KEYS.manifest]
    assert first.manifest == hashlib.sha256(body).hexdigest()
    assert first.digest == manifests.content_digest(manifests.decode(KEYS.manifest, body))


def test_a_manifest_that_another_collector_was_faster_with_is_the_same_or_an_error(tmp_path: Path) -> None:
    host, bucket = InsideRunner(tmp_path), ManifestReads()
    many(host.work / "out", 20, 4096)
    first = named(host, bucket)
    body = bucket.objects[KEYS.manifest]
    faster = ManifestReads(standing=body)
    assert named(host, faster) == first
    assert faster.manifest_reads == 1
    with pytest.raises(BucketError, match="holds another list of artifacts"):
        named(host, ManifestReads(standing=body.replace(b"000003", b"000333")))


@pytest.mark.parametrize("lost", [1, 2])
def test_a_lost_answer_is_followed_by_a_look(tmp_path: Path, lost: int) -> None:
    host, bucket = InsideRunner(tmp_path), MemoryBucket()
    many(host.work / "out", 3, 4096)
    bucket.lose = lost
    collected(host, bucket)
    pulled(bucket, tmp_path / "pulled")
    assert described(tmp_path / "pulled") == described(host.work)


def test_a_request_that_never_arrived_is_made_again(tmp_path: Path) -> None:
    class Deaf(MemoryBucket):
        deaf = 1

        def create_from(self, key: str, chunks: Iterable[bytes]) -> Put:
            if self.deaf:
                self.deaf -= 1
                assert sum(map(len, chunks))
                return Put.UNKNOWN
            return super().create_from(key, chunks)

    host, bucket = InsideRunner(tmp_path), Deaf()
    many(host.work / "out", 3, 4096)
    collected(host, bucket)
    pulled(bucket, tmp_path / "pulled")
    assert described(tmp_path / "pulled") == described(host.work)
    assert len(host.packs_read) == 2


@pytest.mark.parametrize(
    "damage", [lambda piece: piece[:-1] + b"\x00", lambda piece: piece[:-1], lambda piece: piece * 2]
)
def test_bytes_damaged_on_the_way_leave_neither_pack_nor_manifest(tmp_path: Path, damage: object) -> None:
    host, bucket = InsideRunner(tmp_path / "host"), FolderBucket(tmp_path / "bucket")
    many(host.work / "out", 10, 4096)
    host.damage = damage  # type: ignore[assignment]
    with pytest.raises(HostError, match="changed on the way"):
        collected(host, bucket)
    assert bucket.list("") == []


def test_a_file_that_changes_after_the_manifest_is_refused(tmp_path: Path) -> None:
    host, bucket = InsideRunner(tmp_path), MemoryBucket()
    many(host.work / "out", 10, 4096)
    asyncio.run(host.manifest(NONCE))
    (host.work / "out" / "0000" / "000003.bin").write_bytes(b"y" * 4096)
    with pytest.raises(HostError, match=r"changed.*000003"):
        collected(host, bucket)
    assert bucket.objects == {}


def test_a_store_that_cuts_objects_off_is_found_out(tmp_path: Path) -> None:
    class Cutting(MemoryBucket):
        def create_from(self, key, chunks):  # type: ignore[no-untyped-def]
            return super().create_from(key, (b"".join(chunks)[:-1],))

    host, bucket = InsideRunner(tmp_path), Cutting()
    many(host.work / "out", 10, 4096)
    with pytest.raises(BucketError, match="shorter"):
        collected(host, bucket)
    assert KEYS.manifest not in bucket.objects


def test_a_cancelled_collector_leaves_nothing_and_ends(tmp_path: Path) -> None:
    """The host falls silent in the middle of a pack; whoever waits is cancelled: no pack, no manifest, no thread."""

    class Silent(InsideRunner):
        async def read_pack(self, nonce, pack):  # type: ignore[no-untyped-def]
            yield b"x"
            reached.set()
            await asyncio.Event().wait()

    host, bucket = Silent(tmp_path / "host"), FolderBucket(tmp_path / "bucket")
    many(host.work / "out", 10, 4096)
    reached = asyncio.Event()

    async def cut() -> None:
        task = asyncio.ensure_future(collect_artifacts(host, bucket, KEYS, NONCE, partial=False))  # type: ignore[arg-type]
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(cut(), 30))
    assert bucket.list("") == []


@pytest.mark.parametrize("position", [0, 5000, -1])
@pytest.mark.parametrize("kind", ["flip", "cut"])
def test_a_damaged_pack_is_refused(tmp_path: Path, position: int, kind: str) -> None:
    host, bucket, other = InsideRunner(tmp_path / "a"), MemoryBucket(), InsideRunner(tmp_path / "b")
    many(host.work / "out", 10, 4096)
    collected(host, bucket)
    key = bucket.order[0]
    body = bytearray(bucket.objects[key])
    if kind == "flip":
        body[position] ^= 1
    else:
        del body[position:]
    bucket.objects[key] = bytes(body)
    with pytest.raises(BucketError):
        pulled(bucket, tmp_path / "pulled")
    with pytest.raises(BucketError):
        staged(other, bucket)
    good = described(host.work)
    assert all(good[path] == entry for path, entry in described(tmp_path / "pulled").items())
    assert not other.sent or described(other.work) == {}


def test_a_host_that_has_the_bytes_is_sent_none(tmp_path: Path) -> None:
    host, bucket, other = InsideRunner(tmp_path / "a"), MemoryBucket(), InsideRunner(tmp_path / "b")
    many(host.work / "out", 20, 4096)
    collected(host, bucket)
    staged(other, bucket)
    assert other.sent == 20 * 4096
    staged(other, bucket)
    assert other.sent == 20 * 4096


def test_only_what_a_host_lacks_is_read(tmp_path: Path) -> None:
    host, bucket, other = InsideRunner(tmp_path / "a"), MemoryBucket(), InsideRunner(tmp_path / "b")
    many(host.work / "out", 100, 4096)
    collected(host, bucket)
    staged(other, bucket)
    gone = next(path for path in (tmp_path / "b" / "store").glob("??/*"))
    gone.unlink()
    bucket.requests.clear()
    other.sent = 0
    staged(other, bucket)
    assert other.sent == 4096
    assert bucket.requests["read"] == 1


def test_equal_files_are_stored_once_and_pulled_everywhere(tmp_path: Path) -> None:
    host, bucket = InsideRunner(tmp_path), MemoryBucket()
    (host.work / "out").mkdir()
    for index in range(500):
        (host.work / "out" / f"{index}").write_bytes(b"same" * 1000)
    for name in "ab":
        (host.work / "out" / name).write_bytes(b"large" * (1 << 20))
    collected(host, bucket)
    assert sum(len(bucket.objects[key]) for key in bucket.order[:-1]) == 4000 + 5 * (1 << 20)
    bucket.requests.clear()
    pulled(bucket, tmp_path / "pulled")
    assert described(tmp_path / "pulled") == described(host.work)
    assert bucket.requests["read"] == 3


def test_large_files_go_by_in_bounded_memory(tmp_path: Path) -> None:
    """512 MB through all three ways in a process of its own: its peak stays below 160 MB."""
    script = (
        "import asyncio,resource,sys,pathlib\n"
        "from tests.app.transfer.test_artifacts import *\n"
        "t=pathlib.Path(sys.argv[1]); h=InsideRunner(t/'h'); o=InsideRunner(t/'o'); b=FolderBucket(t/'b')\n"
        "(h.work/'out').mkdir(); f=(h.work/'out'/'f').open('wb')\n"
        "[f.write(bytes([i%251])*(1<<20)) for i in range(512)]; f.close()\n"
        "start=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "collected(h,b); pulled(b,t/'p'); staged(o,b)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss-start)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert int(answer.stdout) < 160 * 1024


def test_pulling_again_leaves_identical_files_alone_and_mends_others(tmp_path: Path) -> None:
    host, bucket = InsideRunner(tmp_path), MemoryBucket()
    odd(host.work / "out")
    collected(host, bucket)
    pulled(bucket, tmp_path / "pulled")
    kept, broken = tmp_path / "pulled" / "out" / "twin", tmp_path / "pulled" / "out" / "Twin"
    before = kept.stat()
    broken.write_bytes(b"UPPER")
    bucket.requests.clear()
    pulled(bucket, tmp_path / "pulled")
    assert described(tmp_path / "pulled") == described(host.work)
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert bucket.requests["read"] == 1


def test_progress_reaches_the_total_in_rising_steps(tmp_path: Path) -> None:
    host, bucket, other = InsideRunner(tmp_path / "a"), MemoryBucket(), InsideRunner(tmp_path / "b")
    many(host.work / "out", 25, 1 << 20)
    (host.work / "out" / "large").write_bytes(os.urandom(9 << 20))
    total = 34 << 20
    said: list[tuple[int, int]] = []

    def progress(done: int, of: int) -> None:
        said.append((done, of))

    async def steps() -> None:
        await collect_artifacts(host, bucket, KEYS, NONCE, partial=False, progress=progress)  # type: ignore[arg-type]
        manifest = manifests.decode(KEYS.manifest, bucket.objects[KEYS.manifest])
        await asyncio.sleep(0)
        check()
        await stage_inputs(other, bucket, [("w", KEYS, manifest)], progress=progress)  # type: ignore[arg-type]
        await asyncio.sleep(0)
        check()
        with SafeFolder(tmp_path / "pulled") as tree:
            await pull(bucket, KEYS, manifest, tree, progress=progress)
        await asyncio.sleep(0)
        check()

    def check() -> None:
        assert said[0] == (0, total)
        assert said[-1] == (total, total)
        assert said.count((total, total)) == 1
        assert len(said) > 10
        assert said == sorted(said)
        said.clear()

    asyncio.run(steps())


def test_partial_artifacts_are_marked_and_no_input(tmp_path: Path) -> None:
    host, bucket = InsideRunner(tmp_path), MemoryBucket()
    many(host.work / "out", 2, 10)
    host.ended(code=1)
    manifest = collected(host, bucket, partial=True)
    assert manifest.partial
    assert manifests.decode(KEYS.manifest, bucket.objects[KEYS.manifest]).partial
    pulled(bucket, tmp_path / "pulled")
    assert described(tmp_path / "pulled") == described(host.work)
    with pytest.raises(UsageError, match="prepare are partial"):
        staged(host, bucket)


def test_two_inputs_with_one_path_are_refused_by_both_names(tmp_path: Path) -> None:
    host, bucket = InsideRunner(tmp_path), MemoryBucket()
    many(host.work / "out", 2, 10)
    manifest = collected(host, bucket)

    async def steps() -> None:
        await stage_inputs(host, bucket, [("one", KEYS, manifest), ("two", OTHER, manifest)])  # type: ignore[arg-type]

    with pytest.raises(UsageError, match="inputs one and two both"):
        asyncio.run(steps())


def test_a_manifest_that_another_wrote_is_not_taken_for_ours(tmp_path: Path) -> None:
    host, bucket = InsideRunner(tmp_path), MemoryBucket()
    many(host.work / "out", 2, 10)
    bucket.objects[KEYS.manifest] = b'{"v":1,"kind":"manifest","partial":false}\n'
    with pytest.raises(BucketError, match="another list"):
        collected(host, bucket)


def test_names_that_are_one_on_the_target_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    class Folding(SafeFolder):
        def folds_names(self) -> bool:
            return True

    host, bucket = InsideRunner(tmp_path), MemoryBucket()
    odd(host.work / "out")
    manifest = collected(host, bucket)
    with Folding(tmp_path / "pulled") as tree, pytest.raises(DstackError, match="one name"):
        asyncio.run(pull(bucket, KEYS, manifest, tree))
    assert not (tmp_path / "pulled").exists()


def test_no_artifacts_give_an_empty_manifest(tmp_path: Path) -> None:
    host, bucket = InsideRunner(tmp_path, paths=[]), MemoryBucket()
    assert collected(host, bucket).entries == ()
    pulled(bucket, tmp_path / "pulled")
    assert list(bucket.objects) == [KEYS.manifest]
