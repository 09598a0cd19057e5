"""Where things stand: small folders, public class names that stand once, and a test for each module of decisions.

`python -m tests.layout` prints what is otherwise, and fails then.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.support.checkout import ROOT

FOLDER_FILES = 16
"""Files of a folder, `__init__.py` included."""
TESTED = {"dstack/core": "tests/unit/core", "dstack/app/protocol": "tests/app/protocol"}
"""The folder of decisions -> the folder with the tests: each module in the first, and below, has a `test_<module>.py`
in the second or below."""


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def full_folders() -> Iterator[str]:
    count: dict[Path, int] = defaultdict(int)
    for path in [*sources("dstack"), *sources("tests")]:
        count[path.parent] += 1
    for folder, files in sorted(count.items()):
        if files > FOLDER_FILES:
            yield f"{folder.relative_to(ROOT)}: {files} files, the limit is {FOLDER_FILES}"


def classes_of(path: Path) -> Iterator[str]:
    """The public classes of a module."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name


def classes_twice() -> Iterator[str]:
    places: dict[str, list[str]] = defaultdict(list)
    for path in sources("dstack"):
        for name in classes_of(path):
            places[name].append(path.relative_to(ROOT).as_posix())
    for name, where in sorted(places.items()):
        if len(where) > 1:
            yield f"class {name} stands more than once: {', '.join(where)}"


def untested_modules() -> Iterator[str]:
    for folder, test_folder in TESTED.items():
        tests = {path.stem for path in sources(test_folder)}
        for path in sources(folder):
            name = f"test_{path.stem}"
            if path.stem != "__init__" and name not in tests:
                yield f"{path.relative_to(ROOT)}: there is no {name}.py in {test_folder}"


def main() -> int:
    found = [*full_folders(), *classes_twice(), *untested_modules()]
    print("\n".join(found) if found else "layout: all in its place")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
