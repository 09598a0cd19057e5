"""The contract between a coordinator and a runner: frames, and the names of operations; the messages stand beside.

Shared by the CLI and by the shipped runner and coordinator, so: Python 3.9 and the standard library only.
docs/format.md is normative; this package is the only spelling in code.

A stream is a sequence of frames: one byte kind, four bytes length (big-endian), then the payload. MESSAGE carries a
JSON object in UTF-8. DATA carries eight bytes request id and raw bytes; a DATA frame without bytes ends the stream of
the request.
"""

from __future__ import annotations

import json
import re
import struct
from typing import Any, Dict, Iterator, NamedTuple, Optional, Tuple

WIRE_VERSION = 1
MESSAGE = 1
DATA = 2
HEADER = struct.Struct(">BI")
REQUEST_ID = struct.Struct(">Q")
MAX_FRAME_BYTES = 1 << 20
"""Longest payload of a frame in bytes; a peer that announces more is cut off."""
CHUNK_BYTES = 256 * 1024
"""Bytes of bulk data in one DATA frame."""
RAW_ATTRIBUTES = "* -text -filter -ident !working-tree-encoding\n"
"""The info/attributes of each repository that packs or unpacks code: git converts no byte on either side."""
BOOT_ID_VARIABLE = "DSTACK_BOOT_ID"
"""Names another boot of the machine, for tests: containers share the boot id of their kernel."""
SHORTEST_SECRET = 4
"""Bytes: a shorter secret stands in too many innocent words to be masked in a log."""

LAUNCHER = "import sys;exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline()or 0)))"
"""The program for a host's python3, over SSH and locally: the program reads the bootstrap, and becomes the
bootstrap."""

LEASE_S = 60
"""Seconds without a message after which a runner ends, where `hello` said so. The coordinator then sleeps, or is cut
off, and would keep slots without a use for them."""
LEASE_BEAT_S = 15.0
"""Seconds between two signs of life of a coordinator with a lease."""

# The operations of a runner. Each request is {"id", "op", …}; the answer is {"id", "ok": {…}} or
# {"id", "error": {"kind", "message", "hint"}}. docs/format.md has the fields of each.
HELLO = "hello"
CODE_BASIS = "code.basis"
CODE_PUSH = "code.push"
BLOBS_MISSING = "blobs.missing"
BLOBS_PUSH = "blobs.push"
HOLD = "hold"
DROP = "drop"
PREPARE = "prepare"
GO = "go"
VERDICT = "verdict"
STATUS = "status"
WAIT = "wait"
FOLLOW = "follow"
CANCEL = "cancel"
CREDIT = "credit"
"""The only message without an id: `request` may be sent `bytes` more of DATA. Never answered."""
STOP = "stop"
MANIFEST = "manifest"
PACK_READ = "pack.read"
RELEASE = "release"
SPOOL = "spool"
QUEUE = "queue"
IMAGES = "images"
COORDINATORS_ENDED = "coordinators.ended"
SIGHTING = "sighting"

# The operations of the coordinator that is shipped to hosts.
HAND = "hand"
LOOK = "look"
LIBRARY_HAVE = "library.have"
LIBRARY_PUSH = "library.push"

# What a host says of an attempt: nothing ever ran; a supervisor waits; the job runs; it ended; both are gone without a
# word.
UNKNOWN = "unknown"
HELD = "held"
RUNNING = "running"
ENDED = "ended"
VANISHED = "vanished"
STATES = (UNKNOWN, HELD, RUNNING, ENDED, VANISHED)

# What every account of a host can see of an attempt of one of them: it lives; nothing of it is seen; or, UNKNOWN, the
# host shows accounts nothing of one another.
ALIVE = "alive"
UNSEEN = "unseen"
SIGHTINGS = (ALIVE, UNSEEN, UNKNOWN)

# What a supervisor wrote once for its nonce, before the first command.
STARTED = "started"
REFUSED = "refused"
NOT_HELD = "held"
"""Kind of the refusal of a request that needs a held attempt, when no supervisor holds the attempt (any more)."""
NO_ROOM = "room"
"""Kind of every refusal for want of room on a disk of the host: full, a quota, no inode left."""
UNKILLABLE = "unkillable"
"""Kind of the refusal of `stop` when the kernel does not let processes of the job end (state D)."""


EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""The hash of no bytes: an empty file has this hash, and no blob."""

# \Z, because `$` would allow a newline at the end, and these texts become names of files and folders.
_NONCE = re.compile(r"[a-z0-9]{16,64}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_BOOT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


def is_nonce(value: object) -> bool:
    """Whether a value can be a nonce: the name of an attempt on its host, and the id of a coordinator."""
    return isinstance(value, str) and _NONCE.match(value) is not None


def is_sha256(value: object) -> bool:
    """Whether a value can be a sha256 as dstack writes hashes: 64 hex digits in lower case."""
    return isinstance(value, str) and _SHA256.match(value) is not None


def is_commit(value: object) -> bool:
    """Whether a value can be the id of a git commit, in a repository of either hash."""
    return isinstance(value, str) and _COMMIT.match(value) is not None


def is_boot_id(value: object) -> bool:
    """Whether a value has the form of Linux's boot id."""
    return isinstance(value, str) and _BOOT_ID.match(value) is not None


class Frame(NamedTuple):
    """A frame off the wire: kind and payload."""

    kind: int
    payload: bytes


class ProtocolError(Exception):
    """The peer sent bytes that are no frames of this protocol."""


class Refusal(Exception):
    """A request that a runner or a coordinator refuses, or cannot do.

    `kind` is a word of docs/format.md, for programs; `message` says what failed and where on this host; `hint` says
    what to do next.
    """

    def __init__(self, kind: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.hint = hint

    def to_json(self) -> Dict[str, str]:
        """The `error` of an answer."""
        return {"kind": self.kind, "message": self.message, "hint": self.hint}


def pack_message(message: Dict[str, Any]) -> bytes:
    """A MESSAGE frame; raises ProtocolError for a message longer than MAX_FRAME_BYTES."""
    # Names may hold bytes that are no UTF-8, for which lone surrogates stand.
    payload = json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogateescape")
    if len(payload) > MAX_FRAME_BYTES:
        raise ProtocolError("a message of %d bytes is longer than a frame" % len(payload))
    return HEADER.pack(MESSAGE, len(payload)) + payload


def pack_data(request: int, data: bytes) -> bytes:
    """One DATA frame for a request; empty `data` ends the stream."""
    return HEADER.pack(DATA, REQUEST_ID.size + len(data)) + REQUEST_ID.pack(request) + data


def unpack_message(payload: bytes) -> Dict[str, Any]:
    """The JSON object of a MESSAGE frame; raises ProtocolError for a payload without an object."""
    try:
        message = json.loads(payload.decode("utf-8", "surrogateescape"))
    except ValueError as error:
        raise ProtocolError("a message is not JSON: %s" % error) from None
    except RecursionError:
        raise ProtocolError("a message is nested too deep") from None
    if not isinstance(message, dict):
        raise ProtocolError("a message is not a JSON object")
    return message


def unpack_data(payload: bytes) -> Tuple[int, bytes]:
    """Request id and bytes of a DATA frame; raises ProtocolError when it is too short."""
    if len(payload) < REQUEST_ID.size:
        raise ProtocolError("a data frame is shorter than its request id")
    return REQUEST_ID.unpack_from(payload)[0], payload[REQUEST_ID.size :]


class FrameReader:
    """Turns bytes in pieces of any size into frames; holds at most a frame and a piece."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete with `data`; raises ProtocolError on an unknown kind or length."""
        self._buffer += data
        while True:
            frame = self._next()
            if frame is None:
                return
            yield frame

    def _next(self) -> Optional[Frame]:
        if len(self._buffer) < HEADER.size:
            return None
        kind, length = HEADER.unpack_from(self._buffer)
        if kind not in (MESSAGE, DATA) or length > MAX_FRAME_BYTES:
            raise ProtocolError("not a frame: kind %d, length %d" % (kind, length))
        end = HEADER.size + length
        if len(self._buffer) < end:
            return None
        # A copy: the buffer below is cut and filled again.
        payload = bytes(self._buffer[HEADER.size : end])
        del self._buffer[:end]
        return Frame(kind, payload)
