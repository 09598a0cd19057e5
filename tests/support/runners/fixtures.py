"""Fixtures of one host in a temporary folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.runners.host import Host, Snapshot


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return Snapshot(tmp_path_factory.mktemp("snapshot"))


@pytest.fixture
def host(tmp_path: Path, snapshot: Snapshot) -> Iterator[Host]:
    one = Host(tmp_path, snapshot)
    yield one
    one.tear_down()
