"""Artifacts on their ways: from a host to the bucket, from the bucket to the host of a dependant or to a folder.

Every byte is checked against its sha256 where the byte is read. Objects in the bucket are found through the manifest
only, and the manifest is written after all objects that the manifest names.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

from dstack.app.effects.answers import Collected
from dstack.app.effects.steps import take
from dstack.app.protocol.create_if_absent import create_or_read
from dstack.app.transfer.byte_streams import Meter, Progress, for_each, in_blocks, iterate_in_threads, run_in_thread
from dstack.app.transfer.pack_reader import SMALL_FILE_BYTES, ReadGroup, StoredFiles, stored_files
from dstack.app.transfer.pack_sender import PackSender
from dstack.app.transfer.threaded_bucket import ThreadedCreator
from dstack.core.artifacts import manifests
from dstack.core.format.keys import AttemptKeys
from dstack.errors import BucketError, DamagedObjectError, DstackError, HostError
from dstack.model import Entry, Manifest, Nonce
from dstack.ports import Bucket, RunnerPort, TreeWriter

PACKS_AT_ONCE = 3
INLINE_ENTRIES_BYTES = 128 << 10
"""Inputs with a list longer than this go to the host as a blob that holds the list."""


async def collect_artifacts(
    runner: RunnerPort,
    bucket: Bucket,
    keys: AttemptKeys,
    nonce: Nonce,
    *,
    partial: bool,
    progress: Progress | None = None,
) -> Collected:
    """Bring the artifacts of an ended job into the bucket: all packs, then the manifest. May be repeated.

    Returns the digests by which a result names the manifest. Packs that are there are not sent again; no pack is larger
    than a piece of a file (1 GiB), and each is verified before the pack is there, so that a cut costs no more. Raises
    HostError when the host says no or sends other bytes than the manifest of the host says, HostUnreachableError, and
    BucketError; the manifest is then not written, and no half-written pack is left.
    """
    manifest = _checked(runner.name, await runner.manifest(nonce), partial)
    packs = manifests.uploads(manifest)
    # One list spares all packs of an earlier try; a pack that a late list lacks is merely offered again.
    there = set(await asyncio.to_thread(bucket.list, keys.pack(""))) if packs else set()
    meter = Meter(progress, sum(map(manifests.pack_size, packs.values())))

    async def send(item: tuple[str, tuple[Entry, ...]]) -> None:
        pack, members = item
        key, size = keys.pack(pack), manifests.pack_size(members)
        if key in there:
            meter.add(size)
        else:
            await PackSender(bucket, runner, nonce, members=members, meter=meter).create(key)
        # Also for packs that were there: a manifest must name nothing that was cut.
        await asyncio.to_thread(_check_length, bucket, key, size)

    await for_each(packs.items(), send, limit=PACKS_AT_ONCE)
    return await _commit_manifest(bucket, keys.manifest, manifest)


async def _commit_manifest(bucket: Bucket, key: str, manifest: Manifest) -> Collected:
    """Create the manifest; raises BucketError where another manifest stands, by which a result could not be named."""
    body = manifests.encode(manifest)
    if await take(create_or_read(key, body), ThreadedCreator(bucket)) != body:
        raise BucketError(f"{key} holds another list of artifacts", hint="run the workflow with --rerun")
    # What stands there is what was encoded here: it need not be read again to be named.
    return Collected(manifest=hashlib.sha256(body).hexdigest(), digest=manifests.content_digest(manifest))


def _checked(host: str, manifest: Manifest, partial: bool) -> Manifest:
    try:
        return manifests.manifest_of(manifest.entries, partial=partial)
    except ValueError as error:
        raise HostError(host, f"its list of artifacts cannot be: {error}", hint="run `dstack hosts check`") from None


def _check_length(bucket: Bucket, key: str, size: int) -> None:
    """Raises BucketError when the store kept fewer bytes than were sent: libraries have cut objects off in silence."""
    for _ in bucket.read(key, size - 1, 1):
        pass


async def stage_inputs(
    runner: RunnerPort,
    bucket: Bucket,
    inputs: Sequence[tuple[str, AttemptKeys, Manifest]],
    *,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Bring the blobs that a host lacks of a job's inputs into the host's store; returns the `inputs` of `prepare`.

    `inputs` are the workflows with artifacts that the job takes, and the places of the artifacts. Long lists of entries
    go as a separate blob (docs/format.md, kind `entries`), so that `prepare` stays a single message. Raises UsageError
    when two inputs have the same path, DamagedObjectError when bytes are gone or damaged, also when read once more,
    BucketError when the store does not answer, and all errors of the runner.
    """
    entries = manifests.merge([(workflow, manifest) for workflow, _, manifest in inputs])
    wanted = await _lacking(runner, {entry.sha256 for entry in entries if entry.pack or entry.pieces})
    runs: list[ReadGroup] = []
    for _, keys, manifest in inputs:
        for part in stored_files(keys, manifest):
            files = [entry for entry in manifests.distinct_entries(part.files) if entry.sha256 in wanted]
            # Equal files of several inputs are sent once.
            wanted.difference_update(entry.sha256 for entry in files)
            runs += part.runs(files)
    meter = Meter(progress, sum(run.size for run in runs))

    async def push(run: ReadGroup) -> None:
        try:
            await _push_run(runner, bucket, run, meter)
        except DamagedObjectError as error:
            await run_in_thread(lambda check: _read_again(bucket, run, check))
            raise BucketError(
                f"{error}; read once more it is whole", hint="something on the way changes bytes"
            ) from None

    await for_each(runs, push, limit=2)
    return await _as_list(runner, [manifests.to_wire(entry) for entry in entries])


async def _lacking(runner: RunnerPort, digests: set[str]) -> set[str]:
    return set(await runner.missing_blobs(sorted(digests))) & digests


async def _push_run(runner: RunnerPort, bucket: Bucket, run: ReadGroup, meter: Meter) -> None:
    blobs = [(entry.sha256, entry.size) for entry in run.files]
    pieces = (piece for _, piece in run.read(bucket))
    await runner.push_blobs(blobs, iterate_in_threads(meter.counted(in_blocks(pieces))))


def _read_again(bucket: Bucket, run: ReadGroup, check: Callable[[], None]) -> None:
    """Raises DamagedObjectError unless the bytes are right now: bytes may have been damaged on the way alone."""
    for _ in run.read(bucket):
        check()


async def _one(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _as_list(runner: RunnerPort, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    body = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in entries).encode("ascii")
    if len(body) <= INLINE_ENTRIES_BYTES:
        return entries
    digest = hashlib.sha256(body).hexdigest()
    if await _lacking(runner, {digest}):
        await runner.push_blobs([(digest, len(body))], _one(body))
    return [{"kind": "entries", "sha256": digest, "size": len(body)}]


async def pull(
    bucket: Bucket, keys: AttemptKeys, manifest: Manifest, target: TreeWriter, *, progress: Progress | None = None
) -> None:
    """Write the artifacts of an attempt below a folder, verified; files that stand there already are not read again.

    Raises BucketError when bytes are gone or damaged, DstackError for paths that the folder does not take; files
    written before are whole, so that pulling again goes on from there.
    """
    meter = Meter(progress, sum(entry.size for entry in manifest.entries))
    await run_in_thread(lambda check: _write_small(manifest, target, check))

    async def fetch(part: StoredFiles) -> None:
        await run_in_thread(lambda check: _pull_part(bucket, part, _PullTarget(target, meter, check)))

    await for_each(stored_files(keys, manifest), fetch, limit=PACKS_AT_ONCE)


def _write_small(manifest: Manifest, target: TreeWriter, check: Callable[[], None]) -> None:
    """Write all entries without bytes; folders come first of all, so that folders get their own modes."""
    twins = manifests.twin_paths(manifest)
    if twins is not None and target.folds_names():
        raise DstackError(
            f"{twins[0]!a} and {twins[1]!a} are one name on this disk",
            hint="pull on a machine that tells them apart, or let the job use other names",
        )
    for entry in sorted(manifest.entries, key=lambda entry: entry.kind != "folder"):
        check()
        if not entry.pack and not entry.pieces and not target.holds(entry):
            target.write(entry, ())


class _PullTarget:
    """The target of pulled files, and the meter of their bytes."""

    def __init__(self, target: TreeWriter, meter: Meter, check: Callable[[], None]) -> None:
        self.target = target
        self._meter = meter
        self._check = check

    def lacks(self, entry: Entry) -> bool:
        self._check()
        if not self.target.holds(entry):
            return True
        self._meter.add(entry.size)
        return False

    def write(self, entry: Entry, chunks: Iterable[bytes]) -> None:
        self.target.write(entry, self._counted(chunks))

    def _counted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._check()
            yield chunk
            self._meter.add(len(chunk))


def _pull_part(bucket: Bucket, part: StoredFiles, place: _PullTarget) -> None:
    wanted: dict[int, list[Entry]] = {}
    for offset, group in groupby(part.files, key=attrgetter("offset")):
        paths = [entry for entry in group if place.lacks(entry)]
        if paths:
            wanted[offset] = paths
    for run in part.runs(paths[0] for paths in wanted.values()):
        if run.files[0].size > SMALL_FILE_BYTES:
            for entry in wanted[run.files[0].offset]:
                place.write(entry, (piece for _, piece in run.read(bucket)))
            continue
        for first, body in run.whole(bucket):
            for entry in wanted[first.offset]:
                place.write(entry, (body,))
