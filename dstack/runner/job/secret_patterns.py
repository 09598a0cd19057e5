"""The forms of a secret value in a log, byte for byte: the patterns for the masker.

Best effort by nature: a secret that the job cuts into pieces, turns round or encrypts cannot be found.
"""

from __future__ import annotations

import json
import re
from binascii import b2a_base64
from typing import Iterable, Iterator, List, Set

from dstack.wire import SHORTEST_SECRET

BASE64_LINE_WIDTHS = (76, 64)
"""Characters in a line of base64, as `base64` and PEM break lines."""
_UNRESERVED = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_FOR_URLS = bytes.maketrans(b"+/", b"-_")
_CODE = re.compile(r"\\u[0-9a-f]{4}")
# As Go's encoding/json writes these three, and other writers of JSON for use in HTML.
_JSON_IN_HTML = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def patterns(values: Iterable[str]) -> List[bytes]:
    """Every form of the values to mask, each once, at least SHORTEST_SECRET bytes long, in order.

    Of a value of several lines every line counts by itself too.
    """
    found: Set[bytes] = set()
    for value in values:
        # Both: `splitlines` ends a line also at characters that most programs keep within a line.
        for part in {value, *value.splitlines(), *value.split("\n")}:
            found.update(_forms(part))
        found.update(_wrapped(value.encode("utf-8", "surrogateescape")))
    return sorted(form for form in found if len(form) >= SHORTEST_SECRET)


def _forms(text: str) -> Iterator[bytes]:
    raw = text.encode("utf-8", "surrogateescape")
    if len(raw) < SHORTEST_SECRET:
        return
    for form in {text, *_quoted(text), *_in_urls(raw)}:
        yield form.encode("utf-8", "surrogateescape")
    yield from _base64(raw)
    yield raw.hex().encode("ascii")
    yield raw.hex().upper().encode("ascii")


def _quoted(text: str) -> Iterator[str]:
    """The value in JSON of differing writers, in Python's repr, and in the trace of a shell."""
    for ascii_only in (True, False):
        plain = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        # Further on: PHP escapes "/", and some writers use capital letters for the digits of \u.
        html = "".join(_JSON_IN_HTML.get(character, character) for character in plain)
        yield from (plain, plain.replace("/", "\\/"), html, _CODE.sub(lambda code: "\\u" + code[0][2:].upper(), html))
    yield repr(text)[1:-1]
    yield text.replace("'", "'\\''")


def _in_urls(raw: bytes) -> Iterator[str]:
    """The value with percent signs; writers of URLs and forms differ in the characters left unquoted."""
    # Python's `quote` keeps "/", and JavaScript's `encodeURIComponent` keeps "!'()*".
    for kept in ("", "/", "!'()*"):
        for form in ("%%%02X", "%%%02x"):
            quoted = "".join(chr(byte) if chr(byte) in _UNRESERVED + kept else form % byte for byte in raw)
            yield quoted
            yield quoted.replace("%20", "+")


def _base64(raw: bytes) -> Iterator[bytes]:
    """The value in base64, at each of the three offsets where a value may begin within the encoded bytes.

    The first digit is left out if the digit also holds bits of the byte before the value, for these bits are unknown.
    """
    for before, shared in ((0, 0), (1, 2), (2, 3)):
        for digits in _to_its_end(bytes(before) + raw):
            own = digits[shared:]
            yield own
            yield own.translate(_FOR_URLS)


def _wrapped(raw: bytes) -> Iterator[bytes]:
    """The lines of the value's own base64, for a value too long for a single line."""
    for digits in _to_its_end(raw):
        for width in BASE64_LINE_WIDTHS:
            if len(digits) > width:
                for start in range(0, len(digits), width):
                    yield digits[start : start + width]


def _to_its_end(raw: bytes) -> Iterator[bytes]:
    """The base64 digits of `raw`, whatever follows in the encoded bytes.

    The last digit may hold bits of the next byte. The digit is included where these bits are known: when `raw` is the
    end of the encoded bytes, or a newline follows, as from `echo`; then with and without padding.
    """
    if len(raw) % 3 == 0:
        yield b2a_base64(raw, newline=False)
        return
    for end in (b"", b"\n"):
        padded = b2a_base64(raw + end, newline=False)
        yield padded
        yield padded.rstrip(b"=")
    yield b2a_base64(raw, newline=False).rstrip(b"=")[:-1]
