"""The process of dstack is ended in few places: everywhere else an error says how a command ends."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.support.checkout import ROOT

SOURCE = ROOT / "dstack"
ENTRY_POINTS = {"__main__.py", "cli/main.py"}
SIGNAL_HANDLERS = {"cli/runs/logs.py"}
"""Where SIGTERM ends the process, by way of the code that gives the terminal back."""
PROCESSES_ON_HOSTS = ("runner/", "coordinator/")
"""Processes of their own, with their own ends."""


def ends(source: str) -> Iterator[str]:
    """Names of the ways to end the process that the source uses."""
    for node in ast.walk(ast.parse(source)):
        name = ast.unparse(node) if isinstance(node, ast.Attribute | ast.Name) else ""
        if name in ("sys.exit", "os._exit", "SystemExit"):
            yield name


def test_only_entry_points_and_one_signal_handler_end_the_process() -> None:
    found = set()
    for path in SOURCE.rglob("*.py"):
        place = path.relative_to(SOURCE).as_posix()
        if not place.startswith(PROCESSES_ON_HOSTS) and any(ends(path.read_text(encoding="utf-8"))):
            found.add(place)
    assert found == ENTRY_POINTS | SIGNAL_HANDLERS
