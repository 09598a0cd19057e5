"""Hides secrets in a stream of bytes, wherever it is cut.

What comes out depends on the whole stream alone: every occurrence of a pattern is found, those that overlap are one,
and each becomes MASK. Bytes are held back only while they may be the beginning of a pattern.
"""

from __future__ import annotations

from typing import Dict, Iterable, Iterator, List, Optional, Set, Tuple

MASK = b"***"
BLOCK = 8
"""Bytes of a word that memory is compared by."""
LONG = 2 * BLOCK - 1
"""A pattern of so many bytes contains a whole aligned block wherever it stands."""
FEW = 16
"""Up to so many long patterns are sought one by one; more by their blocks, which costs the same for any number."""


class Masker:
    """Replaces each of `patterns` (none of them empty). Memory: the patterns, and twice the longest of them."""

    def __init__(self, patterns: Iterable[bytes]) -> None:
        every = sorted(set(patterns))
        long = [pattern for pattern in every if len(pattern) >= LONG]
        self._by_block = _by_block(long) if len(long) > FEW else {}
        self._single = [pattern for pattern in every if len(pattern) < LONG] if self._by_block else every
        self._longest = max(map(len, every), default=0)
        self._beginnings = {pattern[:size] for pattern in every for size in range(1, min(LONG, len(pattern)))}
        self._window = b""
        self._covered = 0

    def feed(self, data: bytes) -> bytes:
        """What can be shown by now, once `data` has come."""
        window = self._window + data
        suspects = self._suspects(window)
        return self._show(window, self._unfinished(window, suspects), suspects)

    def finish(self) -> bytes:
        """The rest: the stream has ended, and what was held back is the beginning of nothing."""
        return self._show(self._window, len(self._window), self._suspects(self._window))

    def _show(self, window: bytes, until: int, suspects: List[bytes]) -> bytes:
        """The window up to `until`; what comes after is kept."""
        if until == 0:
            self._window = window
            return b""
        pieces = []
        done, covered = 0, 0
        for start, end in self._spans(window, suspects):
            if start >= until:
                break
            pieces.append(window[done:start])
            # The first bytes may belong to an occurrence whose MASK was given already.
            if start > 0 or self._covered == 0:
                pieces.append(MASK)
            done = min(end, until)
            covered = max(0, end - until)
        if done == 0 and until == len(window):
            self._window, self._covered = b"", 0
            return window
        pieces.append(window[done:until])
        self._window, self._covered = window[until:], covered
        return b"".join(pieces)

    def _spans(self, window: bytes, suspects: List[bytes]) -> List[Tuple[int, int]]:
        """Where secrets stand, in order; what overlaps is one."""
        found = [(0, self._covered)] if self._covered else []
        missing: Optional[bytes] = None
        # In order, a pattern precedes those that begin with it: where it does not stand, none of them is sought.
        for pattern in suspects:
            if missing is None or not pattern.startswith(missing):
                before = len(found)
                found.extend(_occurrences(window, pattern))
                missing = pattern if len(found) == before else None
        if len(found) < 2:
            return found
        found.sort()
        merged = [found[0]]
        for start, end in found[1:]:
            last = merged[-1]
            if start < last[1]:
                merged[-1] = (last[0], max(last[1], end))
            else:
                merged.append((start, end))
        return merged

    def _suspects(self, window: bytes) -> List[bytes]:
        """The patterns that may stand in the window, or LONG bytes of their beginning; perhaps more than do."""
        if not self._by_block:
            return self._single
        blocks = memoryview(window)[: len(window) // BLOCK * BLOCK].cast("Q")
        if self._by_block.keys().isdisjoint(blocks):
            return self._single
        some: Set[bytes] = set()
        for block in self._by_block.keys() & set(blocks):
            some.update(self._by_block[block])
        return [*self._single, *some]

    def _unfinished(self, window: bytes, suspects: List[bytes]) -> int:
        """Where the first beginning of a pattern stands that the end of the window cuts off."""
        first = len(window)
        for size in range(1, min(LONG, len(window) + 1)):
            if window[-size:] in self._beginnings:
                first = len(window) - size
        for pattern in suspects:
            if len(pattern) > LONG:
                first = min(first, _cut_off(window, pattern))
        return first


def _cut_off(window: bytes, pattern: bytes) -> int:
    """Where the window's end cuts off the pattern's beginning of LONG or more bytes; the window's length if nowhere."""
    head = pattern[:LONG]
    at = window.find(head, max(0, len(window) - len(pattern) + 1))
    while at >= 0:
        if pattern.startswith(window[at:]):
            return at
        at = window.find(head, at + 1)
    return len(window)


def _by_block(patterns: List[bytes]) -> Dict[int, Set[bytes]]:
    """Every block that may be the first aligned one of an occurrence -> the patterns it speaks for."""
    found: Dict[int, Set[bytes]] = {}
    for pattern in patterns:
        for at in range(BLOCK):
            block = memoryview(pattern[at : at + BLOCK]).cast("Q")[0]
            found.setdefault(block, set()).add(pattern)
    return found


def _occurrences(window: bytes, pattern: bytes) -> Iterator[Tuple[int, int]]:
    at = window.find(pattern)
    while at >= 0:
        end = at + len(pattern)
        following = window.find(pattern, at + 1)
        while 0 <= following < end:
            end = following + len(pattern)
            following = window.find(pattern, following + 1)
        yield at, end
        at = following
