"""A project of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.support.people.terminal import Project


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Project]:
    """`project({"path": "text"})` -> a project with these files."""

    def make(files: Mapping[str, str] | None = None) -> Project:
        made = Project(tmp_path)
        made.write(files or {})
        return made

    return make
