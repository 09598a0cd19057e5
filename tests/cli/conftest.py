"""A project of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.support.people.laptop import Laptop


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Laptop]:
    """`project({"path": "text"})` -> a project with these files."""

    def make(files: Mapping[str, str] | None = None) -> Laptop:
        made = Laptop(tmp_path, user="alice", columns=80)
        made.write(files or {})
        return made

    return make
