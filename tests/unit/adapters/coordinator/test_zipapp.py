"""What is shipped to hosts is whole: every module that it imports is in it, or is one that a host never needs."""

from __future__ import annotations

import ast
import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

import dstack
from dstack.adapters.coordinator.zipapp import EMBEDDED_MODULE, coordinator_zipapp

LIMIT = 400_000
"""Bytes that go over the line once for each version."""


def sources() -> dict[str, str]:
    body, _ = coordinator_zipapp()
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def imported(text: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return {name for name in found if name.split(".")[0] == "dstack"}


def names(files: Iterable[str]) -> set[str]:
    return {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in files}


def test_every_module_that_it_imports_is_in_it() -> None:
    there = sources()
    root = Path(dstack.__file__).parents[1]
    all_modules = names(path.relative_to(root).as_posix() for path in root.glob("dstack/**/*.py"))
    missing = {
        f"{name} imports {module}"
        for name, text in there.items()
        for module in imported(text) & all_modules - names(there)
    }
    assert missing == set()


def test_it_holds_the_runner_and_names_its_version() -> None:
    assert 'PROGRAM = "' in sources()[EMBEDDED_MODULE]
    assert len(coordinator_zipapp()[0]) < LIMIT, len(coordinator_zipapp()[0])
