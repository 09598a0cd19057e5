"""Common parts of buckets behind a network library: bulk data in memory, messages without secrets."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator

from dstack.adapters.bucket.backend import Container
from dstack.errors import BucketError, DamagedObjectError

MAX_GET_BYTES = 64 << 20
MAX_BULK_BYTES = 256 << 20
"""Most bytes of an object behind fsspec: a single request writes the object, whole in memory."""
REMOTE_READ_BYTES = 4 << 20
NAME_ANOTHER_HINT = "name a folder, s3://, gs:// or az:// as `bucket:` in .dstack/config.yaml"
"""The hint for a URL unfit as a bucket: the well-known kinds."""

CREDENTIAL_REFUSALS = frozenset(
    (
        "ExpiredToken",  # S3: 400
        "ExpiredTokenException",
        "InvalidToken",
        "TokenRefreshRequired",
        "RequestExpired",
        "InvalidAccessKeyId",  # S3: 403
        "SignatureDoesNotMatch",
        "AuthenticationFailed",  # Azure: 403, also of a shared access signature that is over
        "InvalidAuthenticationInfo",  # Azure: 401, a token that is over
        "ExpiredAuthenticationToken",
        "AuthenticationRequired",  # Google: 401
        "UnauthorizedAccess",
    )
)
"""Codes in the answers of stores for refused credentials."""

_CODE = re.compile(r"<Code>\s*([A-Za-z]{1,64})\s*</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,1000})", re.IGNORECASE)
_MARKUP = re.compile(r"[\s:\ufeff]*<(?:\?xml\b|!doctype\b|html\b|error>).*", re.IGNORECASE)
_METADATA = ("//169.254.169.254", "//169.254.170.", "//[fd00:ec2::254]", "//metadata.google.internal")
"""Where machines of a cloud ask for the credentials of their role."""
_SECRET = re.compile(r"(?<=://)[^/@]*@")


def redact_url(url: str) -> str:
    """A URL for messages, without user name, password and query."""
    return _SECRET.sub("", url).split("?", 1)[0]


def join_chunks(place: str, chunks: Iterable[bytes]) -> bytes:
    """All of `chunks` as one body; raises BucketError above MAX_BULK_BYTES, and the errors of `chunks`."""
    body = bytearray()
    for chunk in chunks:
        if len(body) + len(chunk) > MAX_BULK_BYTES:
            raise BucketError(
                f"{place} would be larger than {MAX_BULK_BYTES >> 20} MiB, which this kind of storage cannot hold yet",
                hint="use a folder, s3://, gs:// or az:// as bucket, or make the artifact smaller",
            )
        body += chunk
    return bytes(body)


class TrackedChunks:
    """`chunks` with a note of their `failure`: a library between may wrap the error, or pass it on as the store's."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._source = iter(chunks)
        self.failure: BaseException | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._source)
        # Not a failure: the end of the chunks.
        except StopIteration:
            raise
        except BaseException as error:
            self.failure = error
            raise


def take_chunks(source: Iterator[bytes], limit: int) -> deque[bytes]:
    """Chunks from the beginning of `source`, up to `limit` bytes or a little more, or to its end."""
    pieces: deque[bytes] = deque()
    size = 0
    while size < limit and (piece := next(source, None)) is not None:
        pieces.append(piece)
        size += len(piece)
    return pieces


def error_code(text: str) -> str | None:
    """The code in a store's XML answer, as quoted in a library's error."""
    found = _CODE.search(text)
    return found.group(1) if found else None


def refuses_credentials(text: str) -> bool:
    """Whether a store's answer says: these credentials are over, withdrawn or wrong."""
    return error_code(text) in CREDENTIAL_REFUSALS or "401 Unauthorized" in text


def lacks_credentials(text: str) -> bool:
    """Whether the search for credentials ended at its last place, the credential service for a cloud's own machines."""
    return any(address in text for address in _METADATA)


def short_message(error: BaseException) -> str:
    """The first line of a library's error, at most 300 characters, without secrets in URLs.

    Of a quoted XML answer only the code and the message stay.
    """
    # The lines behind are the library's debug form, which may quote a whole request.
    line = str(error).strip().split("\n", 1)[0]
    told = line
    if markup := _MARKUP.search(line):
        quoted = str(error)[str(error).index(markup.group()) :]
        told = ": ".join(part for part in (line[: markup.start()], _xml_message(quoted)) if part)
    return _SECRET.sub("", told[:300]) or type(error).__name__


def _xml_message(answer: str) -> str:
    """Code and message of an answer in XML, "" where there are none."""
    code, message = error_code(answer), _MESSAGE.search(answer)
    said = " ".join(message.group(1).split())[:200] if message else ""
    return f"{code} ({said})" if code and said else code or said


def missing_container_error(label: str, container: Container) -> BucketError:
    """The error for a missing container of an object store; `label` is the bucket's URL."""
    scheme, _, rest = label.partition("://")
    name = rest.split("/", 1)[0]
    hint = f"make it, as by `{container.command.format(name)}`, or correct `bucket:`"
    return BucketError(f"there is no {container.noun} {scheme}://{name}", hint=hint)


def too_long_error(key: str, place: str, size: int) -> DamagedObjectError:
    """The error for an object above MAX_GET_BYTES; `size` is in bytes."""
    return DamagedObjectError(key, f"{place} is {size} bytes long; at most {MAX_GET_BYTES} are read at once")
