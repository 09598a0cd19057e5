"""Files stay under 400 lines, functions under 40, and take at most 6 parameters.

`ALLOWED` lists what is larger today, with its size: the list shrinks, nothing is added to it.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from tests.support.checkout import ROOT

FILE_LINES = 400
FUNCTION_LINES = 40
PARAMETERS = 6
ALLOWED: dict[str, int] = {}


def complaints(path: Path) -> list[str]:
    """What is too large in one file."""
    name = path.relative_to(ROOT).as_posix()
    source = path.read_text(encoding="utf-8")
    found = []
    lines = source.count("\n")
    if lines > FILE_LINES:
        found.append((name, lines, f"{name}: {lines} lines, the limit is {FILE_LINES}"))
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        place = f"{name}:{node.name}"
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > FUNCTION_LINES:
            told = f"{name}:{node.lineno} {node.name}: {length} lines, the limit is {FUNCTION_LINES}"
            found.append((place, length, told))
        parameters = [a.arg for a in [*node.args.posonlyargs, *node.args.args] if a.arg not in ("self", "cls")]
        if len(parameters) > PARAMETERS:
            found.append((place, 0, f"{name}:{node.lineno} {node.name}: {len(parameters)} positional parameters"))
    return [text for place, size, text in found if size > ALLOWED.get(place, 0) or size == 0]


def main() -> int:
    found = [text for path in sorted((ROOT / "dstack").rglob("*.py")) for text in complaints(path)]
    print("\n".join(found) if found else "sizes: all within limits")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
