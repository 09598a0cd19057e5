"""Each file in `problems/` is a project and the exact lines that `load_project` says of it.

`=== PATH` begins a file of the project; `=== problems` and `=== notes` begin the lines expected. To cover a new
sentence, add a file; never a Python test.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from dstack.errors import ConfigError
from dstack.project.plan import load_project

CASES = sorted((Path(__file__).parent / "problems").glob("*.txt"))


def sections(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for block in text.split("\n=== ")[1:]:
        name, _, body = block.partition("\n")
        found[name] = body if body.endswith("\n") or not body else body + "\n"
    return found


def said(root: Path) -> tuple[str, str]:
    try:
        project = load_project(root)
    except ConfigError as error:
        return "".join(f"{problem}\n" for problem in error.problems), ""
    return "", "".join(f"{note}\n" for note in project.notes)


def lay(root: Path, files: dict[str, str]) -> None:
    for name, body in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body, encoding="utf-8")


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_a_project_is_answered_with_exactly_these_lines(case: Path, tmp_path: Path) -> None:
    parts = sections("\n" + case.read_text(encoding="utf-8"))
    expected = (parts.pop("problems", ""), parts.pop("notes", ""))
    lay(tmp_path, parts)
    assert said(tmp_path) == expected


def test_there_are_cases() -> None:
    assert len(CASES) >= 20
