"""A bucket with a replaceable store, because credentials end while coordinators go on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from dstack.ports import Bucket, Listed, Put


class SwappableBucket:
    """Implements `Bucket` by the latest store; a request under way ends on the store of its beginning."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def swap(self, bucket: Bucket) -> None:
        """Send all later requests to `bucket`."""
        self._bucket = bucket

    @property
    def trouble(self) -> str:
        return self._bucket.trouble

    def create(self, key: str, body: bytes) -> Put:
        return self._bucket.create(key, body)

    def create_from(self, key: str, chunks: Iterable[bytes]) -> Put:
        return self._bucket.create_from(key, chunks)

    def put(self, key: str, body: bytes) -> None:
        self._bucket.put(key, body)

    def get(self, key: str) -> bytes | None:
        return self._bucket.get(key)

    def read(self, key: str, offset: int, length: int) -> Iterator[bytes]:
        return self._bucket.read(key, offset, length)

    def list(self, prefix: str, *, limit: int | None = None) -> Sequence[str]:
        return self._bucket.list(prefix, limit=limit)

    def survey(self, prefix: str) -> Iterator[Listed]:
        return self._bucket.survey(prefix)

    def children(self, prefix: str, *, limit: int | None = None, after: str = "") -> Sequence[str]:
        return self._bucket.children(prefix, limit=limit, after=after)

    def delete(self, key: str) -> None:
        self._bucket.delete(key)
