"""`docs/reference/modules.md`: every module of the source with the first sentence of its docstring."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.docs.markdown import code, page, table
from tests.support.checkout import ROOT

SENTENCE_END = re.compile(r"(?<=[.:])\s+(?=[A-Z`])")
PACKAGE_FILE = "__init__.py"


def modules_page() -> str:
    """A table for each folder of `dstack/`, below the docstring of the folder's package."""
    blocks = [
        "Every module of the source. Which folder may import which, and why: [ARCHITECTURE](../../ARCHITECTURE.md)."
    ]
    for folder in _folders(ROOT / "dstack"):
        name = folder.relative_to(ROOT).as_posix()
        blocks.append(f"## {name}/")
        if purpose := _first_sentence(folder / PACKAGE_FILE):
            blocks.append(purpose)
        rows = [(code(path.stem), _first_sentence(path)) for path in _modules(folder)]
        if rows:
            blocks.append(table(("module", "holds"), rows))
    return page("Modules", *blocks)


def _folders(root: Path) -> Iterator[Path]:
    return (path.parent for path in sorted(root.rglob(PACKAGE_FILE), key=lambda path: path.parent.parts))


def _modules(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.py") if path.name != PACKAGE_FILE)


def _first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring in one line; empty for a module without one."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = text.split("\n\n")[0].replace("\n", " ")
    return SENTENCE_END.split(first)[0]
