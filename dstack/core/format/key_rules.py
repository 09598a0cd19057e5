"""The rules for keys. Checked by every bucket before a key becomes a path or a URL; keys can come from hosts."""

from __future__ import annotations

import re

from dstack.errors import BucketError

MAX_KEY = 900
MAX_KEY_PART = 200
"""Object stores allow 1024 bytes for the whole key, file systems 255 for a part; a bucket's own prefix needs room."""

RESERVED_PREFIX = ".tmp"
"""The beginning of no key: the folder bucket keeps its half-written files there."""

is_part = re.compile(rf"(?!\.{{1,2}}\Z)[A-Za-z0-9._=+@-]{{1,{MAX_KEY_PART}}}", re.ASCII).fullmatch
"""Whether a name may stand between two slashes of a key (truthy) or not (None)."""

_PARTS = re.compile(rf"(?:(?!\.{{1,2}}(?:/|\Z))[A-Za-z0-9._=+@-]{{1,{MAX_KEY_PART}}}/)+", re.ASCII)


def check_key(key: str) -> str:
    """`key` itself; raises BucketError for any other text (ports.Bucket defines keys)."""
    if not is_key(key):
        raise BucketError(f"{_key_text(key)} is not a key", hint="keys are parts of [A-Za-z0-9._=+@-] joined by /")
    return key


def check_prefix(prefix: str) -> str:
    """`prefix` itself; raises BucketError unless `prefix` is a folder of keys: "" (everything) or keys' parts and a
    "/"."""
    if prefix and not (prefix.endswith("/") and is_key(prefix[:-1])):
        raise BucketError(f"{_key_text(prefix)} is not a folder of keys", hint='folders of keys end in "/"')
    return prefix


def check_range(key: str, offset: int, length: int) -> None:
    """Raises BucketError for a range beyond any object; such numbers come out of foreign manifests."""
    # Clients of object stores hold offsets in 64 bits with a sign.
    if offset < 0 or length < 0 or offset + length >= 1 << 63:
        raise BucketError(
            f"{key} cannot be read from {offset} for {length} bytes",
            hint="run what needs it with --rerun",
        )


def is_key(key: str) -> bool:
    return len(key) <= MAX_KEY and not key.startswith(RESERVED_PREFIX) and _PARTS.fullmatch(key + "/") is not None


def _key_text(key: str) -> str:
    return ascii(key if len(key) <= 80 else f"{key[:80]}...")
