"""S3, Google Cloud Storage and Azure Blob as a bucket, by obstore."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    NotFoundError,
    NotSupportedError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnknownConfigurationKeyError,
)
from obstore.store import from_url as _from_url

from dstack.adapters.bucket.backend import Container
from dstack.adapters.bucket.object_stores.arguments import StoreArguments
from dstack.adapters.bucket.remote_errors import (
    MAX_GET_BYTES,
    REMOTE_READ_BYTES,
    TrackedChunks,
    error_code,
    lacks_credentials,
    missing_container_error,
    redact_url,
    refuses_credentials,
    short_message,
    take_chunks,
    too_long_error,
)
from dstack.core.format.key_rules import check_key, check_prefix, check_range
from dstack.errors import BucketError, CredentialsError, DamagedObjectError
from dstack.ports import Listed, Put

if TYPE_CHECKING:
    from concurrent.futures import Future

    from dstack.adapters.bucket.object_stores.aws_profile import KeyProvider

T = TypeVar("T")
from_url: Any = _from_url
"""Typed in obstore by the name of every option; here the options come from a file."""

LIST_PAGE_KEYS = 1000
"""Most keys in a single answer to a list."""
LIBRARY_RETRIES = {"max_retries": 5}
REQUEST_ATTEMPTS = 5
RETRY_WITHIN_S = 3.0
"""Seconds in which a failed request is made again here: an absent store fails slowly, and is not asked again."""
MULTIPART_FROM_BYTES = 32 << 20
"""Least bytes of an object sent in parts. A single conditional request creates a smaller object."""
PART_BYTES = 16 << 20
"""Bytes of a part. A store takes 10,000 parts for an object; dstack's objects are at most a piece of 1 GiB."""
CONCURRENT_PARTS = 4
CONCURRENT_READS = 4
BULK_TIMEOUT = "600s"
"""Time limit for one part or piece on a slow line; a record has the library's 30 s."""
_RENEW_HINT = "renew them (`aws sso login`, `gcloud auth application-default login`, `az login`), or correct `bucket:`"
_ABSENT = (NotFoundError, FileNotFoundError)
_REFUSALS = (
    *_ABSENT,
    InvalidPathError,
    NotSupportedError,
    PermissionDeniedError,
    PermissionError,
    UnauthenticatedError,
)
"""Answers after which the object was certainly not created."""


def open_obstore(url: str, arguments: StoreArguments, container: Container, *, scheme: str = "") -> ObstoreBucket:
    """The bucket at an object store's URL. `scheme` replaces the URL's scheme where obstore knows only the other
    spelling.

    Raises BucketError for a senseless URL or option.
    """
    place = f"{scheme}://{url.partition('://')[2]}" if scheme else url
    patient = arguments.for_bulk(BULK_TIMEOUT)
    try:
        store = from_url(place, config=arguments.config, retry_config=LIBRARY_RETRIES, **arguments.keywords)
        bulk = from_url(place, config=arguments.config, retry_config=LIBRARY_RETRIES, **patient)
    except (BaseError, TypeError, ValueError) as error:
        hint = "check `bucket:` and its options in config.yaml"
        if isinstance(error, UnknownConfigurationKeyError):
            hint = (
                "options are obstore's, such as region, endpoint, access_key_id, and fsspec's key, secret, endpoint_url"
            )
        raise BucketError(f"{redact_url(url)} cannot be opened: {short_message(error)}", hint=hint) from None
    return ObstoreBucket(
        store,
        container,
        bulk=bulk,
        label=redact_url(url),
        who=arguments.who,
        provider=arguments.provider,
    )


class ObstoreBucket:
    """The `Bucket` port on an obstore store. `bulk` is the same store with the time limit of long requests.

    A single conditional request creates an object below MULTIPART_FROM_BYTES. A larger object goes in parts, with
    CONCURRENT_PARTS in memory.
    """

    def __init__(
        self,
        store: Any,
        container: Container,
        *,
        label: str,
        bulk: Any = None,
        who: str = "the credentials of this machine",
        provider: KeyProvider | None = None,
    ) -> None:
        self._who = who
        self._provider = provider
        self._store = store
        self._container = container
        self._bulk = store if bulk is None else bulk
        self._label = label.rstrip("/")
        self.trouble = ""

    def create(self, key: str, body: bytes) -> Put:
        check_key(key)
        return self._create_by(key, lambda: obstore.put(self._store, key, body, mode="create", use_multipart=False))

    def create_from(self, key: str, chunks: Iterable[bytes]) -> Put:
        check_key(key)
        source = TrackedChunks(chunks)
        head = take_chunks(source, MULTIPART_FROM_BYTES)
        if sum(map(len, head)) < MULTIPART_FROM_BYTES:
            return self._create_by(
                key, lambda: obstore.put(self._bulk, key, b"".join(head), mode="create", use_multipart=False)
            )
        # The end of an upload in parts is unconditional on some stores: at least an older object stays as it is.
        if self._exists(key):
            return Put.EXISTS
        try:
            return self._create_by(key, lambda: self._send_parts(key, chain(_drain(head), source)))
        finally:
            # Not the store's failure, whatever the library made of it.
            if source.failure is not None:
                raise source.failure

    def _send_parts(self, key: str, pieces: Iterator[bytes]) -> None:
        """The library gives up the upload, parts included, when `pieces` or a part fails."""
        obstore.put(
            self._bulk, key, pieces, use_multipart=True, chunk_size=PART_BYTES, max_concurrency=CONCURRENT_PARTS
        )

    def _exists(self, key: str) -> bool:
        def look() -> bool:
            try:
                obstore.head(self._store, key)
            except _ABSENT as error:
                if _no_container(error):
                    raise
                return False
            return True

        return self._request("read", key, look)

    def _create_by(self, key: str, write: Callable[[], object]) -> Put:
        try:
            write()
        except AlreadyExistsError:
            return Put.EXISTS
        except _REFUSALS as error:
            raise self._error("create", key, error) from None
        except (BaseError, OSError) as error:
            if refuses_credentials(str(error)):
                raise self._error("create", key, error) from None
            # Timeouts and server errors: it may have landed, or land later. Only the object can tell.
            self.trouble = f"{self._label} said: {short_message(error)}"
            return Put.UNKNOWN
        return Put.CREATED

    def put(self, key: str, body: bytes) -> None:
        check_key(key)
        self._request("write", key, lambda: obstore.put(self._store, key, body, use_multipart=False))

    def get(self, key: str) -> bytes | None:
        check_key(key)

        def fetch() -> bytes | None:
            try:
                found = obstore.get(self._store, key)
            except _ABSENT as error:
                if _no_container(error):
                    raise
                return None
            size = found.meta["size"]
            if size > MAX_GET_BYTES:
                raise too_long_error(key, self._place(key), size)
            return bytes(found.bytes())

        return self._request("read", key, fetch)

    def read(self, key: str, offset: int, length: int) -> Iterator[bytes]:
        check_key(key)
        check_range(key, offset, length)
        ranges = [
            (start, min(start + REMOTE_READ_BYTES, offset + length))
            for start in range(offset, offset + length, REMOTE_READ_BYTES)
        ]
        if not ranges:
            self._check_size(key, offset)
        elif len(ranges) == 1:
            yield self._piece(key, *ranges[0])
        else:
            yield from self._pieces(key, ranges)

    def _pieces(self, key: str, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """Pieces in order, the next CONCURRENT_READS under way."""
        from concurrent.futures import ThreadPoolExecutor  # brings logging along, which no command for records needs

        coming: deque[Future[bytes]] = deque()
        pool = ThreadPoolExecutor(CONCURRENT_READS, thread_name_prefix="dstack-read")
        try:
            for start, end in ranges:
                coming.append(pool.submit(self._piece, key, start, end))
                if len(coming) > CONCURRENT_READS:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _piece(self, key: str, start: int, end: int) -> bytes:
        def fetch() -> bytes:
            return bytes(obstore.get(self._bulk, key, options={"range": (start, end)}).bytes())

        try:
            piece = self._request("read", key, fetch)
        except BucketError:
            # Servers say in many ways that a range lies behind the end.
            self._check_size(key, end)
            raise
        if len(piece) != end - start:
            self._check_size(key, end)
            raise BucketError(f"{self._place(key)} changed while it was read", hint="something else writes there")
        return piece

    def _check_size(self, key: str, wanted: int) -> None:
        size = self._request("read", key, lambda: obstore.head(self._store, key))["size"]
        if size < wanted:
            raise DamagedObjectError(key, f"{self._place(key)} is shorter than {wanted} bytes")

    def list(self, prefix: str, *, limit: int | None = None) -> Sequence[str]:
        check_prefix(prefix)

        def pages() -> Sequence[str]:
            found: list[str] = []
            for page in obstore.list(self._store, prefix=prefix or None, chunk_size=LIST_PAGE_KEYS):
                found.extend(entry["path"] for entry in page)
                # These stores list in ascending order: what comes later sorts later.
                if limit is not None and len(found) >= limit:
                    break
            return found

        return sorted(self._request("list", prefix, pages))[:limit]

    def survey(self, prefix: str) -> Iterator[Listed]:
        check_prefix(prefix)
        pages: Iterator[Any] | None = None
        last: str | None = None

        def following() -> Any:
            nonlocal pages
            asked = pages or iter(
                obstore.list(self._store, prefix=prefix or None, offset=last, chunk_size=LIST_PAGE_KEYS)
            )
            # One that has failed would say next that it is at its end.
            pages = None
            page = next(asked, None)
            pages = asked
            return page

        while (page := self._request("list", prefix, following)) is not None:
            for entry in page:
                last = entry["path"]
                yield Listed(key=last, size=entry["size"], modified=entry["last_modified"].timestamp())

    def children(self, prefix: str, *, limit: int | None = None, after: str = "") -> Sequence[str]:
        check_prefix(prefix)
        if limit is not None:
            return self._request("list", prefix, lambda: self._first_children(prefix, limit, after))
        page = self._request("list", prefix, lambda: obstore.list_with_delimiter(self._store, prefix=prefix or None))
        names = [entry["path"].removeprefix(prefix) for entry in page["objects"]]
        names += [path.rstrip("/").removeprefix(prefix) + "/" for path in page["common_prefixes"]]
        return sorted(name for name in names if name > after)

    def _first_children(self, prefix: str, limit: int, after: str) -> Sequence[str]:
        """The first names, from flat pages of keys, each begun behind the last name found: listing by folders reads all
        keys."""
        found: list[str] = []
        last = after
        while len(found) < limit:
            # Behind everything in the folder, too: keys hold nothing that sorts behind "~".
            behind = f"{prefix}{last}~" if last.endswith("/") else f"{prefix}{last}"
            listed = obstore.list(
                self._store, prefix=prefix or None, offset=behind if last else None, chunk_size=LIST_PAGE_KEYS
            )
            page = next(iter(listed), [])
            for entry in page:
                head, slash, _ = entry["path"].removeprefix(prefix).partition("/")
                if head + slash > last:
                    last = head + slash
                    found.append(last)
            if len(page) < LIST_PAGE_KEYS:
                break
        return found[:limit]

    def delete(self, key: str) -> None:
        check_key(key)

        def remove() -> None:
            try:
                obstore.delete(self._store, key)
            except _ABSENT:
                return

        self._request("delete", key, remove)

    def _place(self, key: str) -> str:
        return f"{self._label}/{key}"

    def _error(self, doing: str, key: str, error: BaseException) -> BucketError:
        text = str(error)
        if _no_container(error):
            return missing_container_error(self._label, self._container)
        if doing == "read" and isinstance(error, _ABSENT):
            return DamagedObjectError(key, f"{self._place(key)} does not exist")
        if isinstance(error, UnauthenticatedError) and self._provider is not None and self._provider.failure:
            return self._provider.failure
        if isinstance(error, UnauthenticatedError) or refuses_credentials(text):
            why = error_code(text) or short_message(error)
            return CredentialsError(f"{self._label} does not accept {self._who}: {why}", hint=_RENEW_HINT)
        if lacks_credentials(text):
            lacking = f"no credentials for {self._label} are found here: no keys, no profile, no role of this machine"
            return CredentialsError(lacking, hint="docs/how-to/share-a-bucket.md says where they are looked for")
        hint = "check that the store can be reached, that it exists and that your credentials are right"
        return BucketError(f"cannot {doing} {self._place(key)}: {short_message(error)}", hint=hint)

    def _request(self, doing: str, key: str, request: Callable[[], T]) -> T:
        """The answer to what may be asked twice; raises BucketError.

        The library asks again when a connection breaks or a store is busy, but not when an answer is cut off.
        """
        give_up = time.monotonic() + RETRY_WITHIN_S
        for left in reversed(range(REQUEST_ATTEMPTS)):
            try:
                return request()
            except (BaseError, OSError) as error:
                final = isinstance(error, _REFUSALS) or refuses_credentials(str(error))
                if final or not left or time.monotonic() > give_up:
                    raise self._error(doing, key, error) from None
            # Random: many coordinators are cut off by the same event, and must not come back at once.
            time.sleep(random.uniform(0.02, 0.2))
        raise AssertionError("the last try returns or raises")


def _drain(pieces: deque[bytes]) -> Iterator[bytes]:
    """The pieces in order; each is dropped from memory when handed on."""
    while pieces:
        yield pieces.popleft()


def _no_container(error: BaseException) -> bool:
    """Whether the bucket itself is missing."""
    return any(
        word in str(error) for word in ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")
    )
