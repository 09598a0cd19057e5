"""Artifacts as they lie in the bucket: groups of files to read at one go, with their objects, verified."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby

from dstack.core.artifacts import manifests
from dstack.core.artifacts.manifests import ChangedBytesError
from dstack.core.artifacts.pieces import pieces_of
from dstack.core.format.keys import AttemptKeys
from dstack.errors import DamagedObjectError
from dstack.model import Entry, Manifest
from dstack.ports import Bucket

SMALL_FILE_BYTES = 4 << 20
"""Files of at most this many bytes are held in memory on their way, larger ones go by in pieces."""
READ_GROUP_BYTES = 16 << 20
"""Bytes of the small files that are read at a time, at most."""
READ_GROUP_FILES = 8_000
"""Files that are read at a time, at most: the digests are sent to a host in a single message, of at most 1 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRange:
    """`length` bytes of one object, from `offset` on."""

    key: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadGroup:
    """Consecutive files in `sources`: neighbours in a pack, or a single large file."""

    files: tuple[Entry, ...]
    sources: tuple[StoredRange, ...]

    @property
    def size(self) -> int:
        return sum(source.length for source in self.sources)

    def read(self, bucket: Bucket) -> Iterator[tuple[Entry, bytes]]:
        """The pieces of bytes, each with the file; raises DamagedObjectError when bytes do not match the digest of the
        file."""
        chunks = chain.from_iterable(bucket.read(each.key, each.offset, each.length) for each in self.sources)
        try:
            yield from manifests.split_bytes(self.files, chunks)
        except ChangedBytesError as error:
            raise DamagedObjectError(self.sources[0].key, f"{self.sources[0].key} is damaged: {error}") from None

    def whole(self, bucket: Bucket) -> Iterator[tuple[Entry, bytes]]:
        """The same for small files, each whole."""
        for entry, pieces in groupby(self.read(bucket), key=lambda item: item[0]):
            yield entry, b"".join(piece for _, piece in pieces)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFiles:
    """The files for a worker to fetch: a pack with the files by offset, or a large file cut into pieces."""

    files: tuple[Entry, ...]
    key: str
    pieces: tuple[StoredRange, ...] = ()

    def runs(self, wanted: Iterable[Entry]) -> Iterator[ReadGroup]:
        """The wanted files, by offset, in groups for a single request each: neighbours, unless large."""
        files: list[Entry] = []
        for entry in wanted:
            if len(files) >= READ_GROUP_FILES or (files and not _are_neighbours(files, entry)):
                yield self._run(files)
                files = []
            files.append(entry)
        if files:
            yield self._run(files)

    def _run(self, files: list[Entry]) -> ReadGroup:
        length = sum(entry.size for entry in files)
        one = (StoredRange(key=self.key, offset=files[0].offset, length=length),)
        return ReadGroup(files=tuple(files), sources=self.pieces or one)


def _are_neighbours(files: list[Entry], entry: Entry) -> bool:
    last = files[-1]
    together = entry.offset + entry.size - files[0].offset
    return (
        last.offset + last.size == entry.offset
        and entry.size <= SMALL_FILE_BYTES
        and last.size <= SMALL_FILE_BYTES
        and together <= READ_GROUP_BYTES
    )


def stored_files(keys: AttemptKeys, manifest: Manifest) -> Iterator[StoredFiles]:
    """All files of an attempt with bytes: all packs, then the files that were cut."""
    for pack, members in manifests.packs(manifest).items():
        yield StoredFiles(files=members, key=keys.pack(pack))
    for entry in manifest.entries:
        sources = tuple(StoredRange(key=keys.pack(each.pack), offset=0, length=each.size) for each in pieces_of(entry))
        if sources:
            yield StoredFiles(files=(entry,), key=sources[0].key, pieces=sources)
