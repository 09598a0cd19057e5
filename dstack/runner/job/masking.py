"""Hides secrets in a stream of bytes, wherever reads cut the stream.

The masked stream depends on the whole stream alone: every occurrence of a pattern is found, overlapping occurrences
count as a single one, and each becomes MASK. Bytes are held back only while a pattern may begin with them.
"""

from __future__ import annotations

from typing import Dict, Iterable, Iterator, List, Optional, Set, Tuple

MASK = b"***"
WORD_BYTES = 8
"""Bytes of a machine word: memory is compared word by word."""
LONG_PATTERN_BYTES = 2 * WORD_BYTES - 1
"""A pattern of this length contains a whole aligned word at any offset."""
SINGLE_SEARCH_PATTERNS = 16
"""Up to this number of long patterns, each is searched by itself; more are searched together by their words, which
costs the same for any number."""


class Masker:
    """Replaces each of `patterns` (none is empty). Memory: the patterns, and twice the longest pattern."""

    def __init__(self, patterns: Iterable[bytes]) -> None:
        every = sorted(set(patterns))
        long = [pattern for pattern in every if len(pattern) >= LONG_PATTERN_BYTES]
        self._by_word = _by_word(long) if len(long) > SINGLE_SEARCH_PATTERNS else {}
        self._single = [pattern for pattern in every if len(pattern) < LONG_PATTERN_BYTES] if self._by_word else every
        self._longest = max(map(len, every), default=0)
        self._beginnings = {
            pattern[:size] for pattern in every for size in range(1, min(LONG_PATTERN_BYTES, len(pattern)))
        }
        self._window = b""
        self._covered = 0

    def feed(self, data: bytes) -> bytes:
        """The part of the masked stream that is certain after `data`."""
        window = self._window + data
        suspects = self._suspects(window)
        return self._show(window, self._unfinished(window, suspects), suspects)

    def finish(self) -> bytes:
        """The rest of the masked stream: no pattern begins at its end any more."""
        return self._show(self._window, len(self._window), self._suspects(self._window))

    def _show(self, window: bytes, until: int, suspects: List[bytes]) -> bytes:
        """The masked window up to `until`; the rest stays for the next call."""
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
        """Start and end of each secret, in order; overlapping secrets are merged."""
        found = [(0, self._covered)] if self._covered else []
        missing: Optional[bytes] = None
        # In order, a pattern precedes all longer patterns with the same beginning: an absent pattern rules them out.
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
        """Every pattern of which the window may hold the first LONG_PATTERN_BYTES bytes; perhaps further patterns."""
        if not self._by_word:
            return self._single
        words = memoryview(window)[: len(window) // WORD_BYTES * WORD_BYTES].cast("Q")
        if self._by_word.keys().isdisjoint(words):
            return self._single
        some: Set[bytes] = set()
        for word in self._by_word.keys() & set(words):
            some.update(self._by_word[word])
        return [*self._single, *some]

    def _unfinished(self, window: bytes, suspects: List[bytes]) -> int:
        """Offset of the first pattern that the end of the window cuts off; the window's length if none is."""
        first = len(window)
        for size in range(1, min(LONG_PATTERN_BYTES, len(window) + 1)):
            if window[-size:] in self._beginnings:
                first = len(window) - size
        for pattern in suspects:
            if len(pattern) > LONG_PATTERN_BYTES:
                first = min(first, _cut_off(window, pattern))
        return first


def _cut_off(window: bytes, pattern: bytes) -> int:
    """Offset of a pattern of which the window ends with LONG_PATTERN_BYTES or more bytes; else the window's length."""
    head = pattern[:LONG_PATTERN_BYTES]
    at = window.find(head, max(0, len(window) - len(pattern) + 1))
    while at >= 0:
        if pattern.startswith(window[at:]):
            return at
        at = window.find(head, at + 1)
    return len(window)


def _by_word(patterns: List[bytes]) -> Dict[int, Set[bytes]]:
    """Every word that may be the first aligned word of an occurrence -> the patterns with this word."""
    found: Dict[int, Set[bytes]] = {}
    for pattern in patterns:
        for at in range(WORD_BYTES):
            word = memoryview(pattern[at : at + WORD_BYTES]).cast("Q")[0]
            found.setdefault(word, set()).add(pattern)
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
