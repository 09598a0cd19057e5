"""Files too large for an object of a bucket are cut into pieces, each alone in a pack of its own."""

from __future__ import annotations

import hashlib
import os
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

from dstack.runner.base import safe_paths

LARGE_PIECE_BYTES = 1 << 30
"""Bytes of each piece but the last; smaller files are not cut."""


class Digests(NamedTuple):
    """sha256 and length of a whole file; the sha256 of each piece of a cut file."""

    sha256: str
    size: int
    pieces: Tuple[str, ...] = ()


def digests_of(fd: int) -> Digests:
    """Hash a file in a single reading; a file to be cut, by the size at the beginning, also piece by piece."""
    if os.fstat(fd).st_size <= LARGE_PIECE_BYTES:
        return Digests(*safe_paths.hash_file(fd))
    whole, piece = hashlib.sha256(), hashlib.sha256()
    pieces: List[str] = []
    at = 0
    while True:
        data = os.pread(fd, min(safe_paths.HASH_BLOCK_BYTES, LARGE_PIECE_BYTES - at % LARGE_PIECE_BYTES), at)
        if not data:
            break
        whole.update(data)
        piece.update(data)
        at += len(data)
        # The reads above stop at the end of a piece, so that no read belongs to two pieces.
        if at % LARGE_PIECE_BYTES == 0:
            pieces.append(piece.hexdigest())
            piece = hashlib.sha256()
    if at % LARGE_PIECE_BYTES:
        pieces.append(piece.hexdigest())
    return Digests(whole.hexdigest(), at, tuple(pieces))


def pack_name(members: Sequence["Tuple[str, int]"]) -> str:
    """The name of a pack: sha256 over lines of `<sha256> <size>`."""
    lines = "".join("%s %d\n" % member for member in members)
    return hashlib.sha256(lines.encode("ascii")).hexdigest()


def find(entry: Dict[str, Any], pack: str) -> List[Dict[str, Any]]:
    """The piece in this pack of a manifest's entry, in a list; an empty list for a pack without a piece of the
    entry."""
    for index, sha256 in enumerate(entry["pieces"]):
        start = index * entry["piece"]
        size = min(entry["piece"], entry["size"] - start)
        if pack_name([(sha256, size)]) == pack:
            return [{"path": entry["path"], "size": size, "sha256": sha256, "start": start, "whole": entry["size"]}]
    return []
