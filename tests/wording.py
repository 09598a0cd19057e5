"""How much of the docstrings of `dstack` points at something that the reader must look up: a report, and no gate.

`python -m tests.wording [NUMBER]` prints the share of pointing words in all docstrings, for each folder and in all, and
the NUMBER docstrings (30) with the most of them.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.checkout import ROOT

POINTING = frozenset(
    "it its that those what whatever whoever who which such one they them nobody somebody".split()  # noqa: SIM905
)
"""Words whose meaning stands elsewhere."""
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
SHOWN = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Docstring:
    """One docstring: where it stands, its words, and how many of them point."""

    place: str
    words: int
    pointing: int

    @property
    def share(self) -> float:
        return self.pointing / self.words


def docstrings(path: Path) -> Iterator[Docstring]:
    """All docstrings of one file, and the strings that stand below constants and fields."""
    name = path.relative_to(ROOT).as_posix()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        body = getattr(node, "body", ())
        for statement in body if isinstance(body, list) else ():
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                text = statement.value.value
                words = WORD.findall(text.lower()) if isinstance(text, str) else []
                if words:
                    pointing = sum(word in POINTING for word in words)
                    yield Docstring(place=f"{name}:{statement.lineno}", words=len(words), pointing=pointing)


def folder_of(docstring: Docstring) -> str:
    return docstring.place.rpartition("/")[0]


def main(arguments: list[str]) -> int:
    shown = int(arguments[0]) if arguments else SHOWN
    found = [each for path in sorted((ROOT / "dstack").rglob("*.py")) for each in docstrings(path)]
    words, pointing = Counter[str](), Counter[str]()
    for each in found:
        for folder in (folder_of(each), "all"):
            words[folder] += each.words
            pointing[folder] += each.pointing
    for folder in sorted(words, key=lambda name: pointing[name] / words[name]):
        print(f"{100 * pointing[folder] / words[folder]:5.1f} %  {words[folder]:6} words  {folder}")
    print()
    for each in sorted(found, key=lambda each: (-each.pointing, -each.share))[:shown]:
        print(f"{each.pointing:3} of {each.words:3}  {each.place}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
