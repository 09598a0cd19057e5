"""Files too large for one object: their pieces, each alone in a pack of its own. Pure.

A broken upload loses at most a piece, also when another coordinator goes on: every piece in the bucket was verified
before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from dstack.model import Entry, EntryKind

MAX_PIECES = 8192


def pack_name(members: Iterable[tuple[str, int]]) -> str:
    """The name of a pack by the sha256 and size of its content, in order."""
    # Over hashes and sizes, not over the bytes: the name is known before a byte is sent.
    lines = "".join(f"{sha256} {size}\n" for sha256, size in members)
    return hashlib.sha256(lines.encode("ascii")).hexdigest()


def are_pieces(size: int, piece: int, count: int) -> bool:
    """Whether a file of `size` bytes is cut into `count` pieces of `piece` bytes, with a last piece that may be
    shorter."""
    return 2 <= count <= MAX_PIECES and piece > 0 and (count - 1) * piece < size <= count * piece


def names_of(size: int, piece: int, pieces: Sequence[str]) -> tuple[str, ...]:
    """The packs of these pieces, in order."""
    last = size - piece * (len(pieces) - 1)
    lengths = (*(piece for _ in pieces[:-1]), last)
    return tuple(pack_name([(sha256, length)]) for sha256, length in zip(pieces, lengths, strict=True))


def pieces_of(entry: Entry) -> tuple[Entry, ...]:
    """Each piece of a cut file as a file alone in its pack; empty for any other entry."""
    if not entry.pieces:
        return ()
    names = names_of(entry.size, entry.piece, entry.pieces)
    return tuple(
        Entry(
            path=entry.path,
            kind=EntryKind.FILE,
            mode=entry.mode,
            size=min(entry.piece, entry.size - index * entry.piece),
            sha256=sha256,
            pack=name,
        )
        for index, (sha256, name) in enumerate(zip(entry.pieces, names, strict=True))
    )
