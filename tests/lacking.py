"""Things that a machine may lack: a test skips with the reason, or fails where `--require-…` asks for the thing.

pytest's cache keeps which tests of each nox session were skipped so; `--skipped-before` plays these alone.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

THINGS = {"docker": "a Docker engine", "azurite": "the emulator of Azure Blob", "openssh": "an OpenSSH client"}
SKIPPED_BEFORE = "--skipped-before"
_LACKS = "this machine lacks "
_required: set[str] = set()


def is_required(thing: str) -> bool:
    """Whether a test that lacks this thing of THINGS is to fail."""
    return thing in _required


def missing(thing: str, reason: str) -> NoReturn:
    """End the test that needs a thing of THINGS: skipped, or failed where the thing is required."""
    told = f"{_LACKS}{THINGS[thing]}: {reason}"
    if is_required(thing):
        pytest.fail(told)
    pytest.skip(told)


def pytest_addoption(parser: pytest.Parser) -> None:
    for thing, words in THINGS.items():
        parser.addoption(f"--require-{thing}", action="store_true", help=f"{words}, missing, is a failure, not a skip")
    told = "play only the tests that this session skipped in earlier runs for want of something on this machine"
    parser.addoption(SKIPPED_BEFORE, action="store_true", help=told)


def pytest_configure(config: pytest.Config) -> None:
    _required.clear()
    _required.update(thing for thing in THINGS if config.getoption(f"--require-{thing}"))
    if getattr(config, "cache", None) is not None:
        config.pluginmanager.register(_Ledger(config), "dstack-lacking")


class _Ledger:
    """The tests of one nox session that were skipped for want of something, until they are played."""

    def __init__(self, config: pytest.Config) -> None:
        session = (os.environ.get("NOX_CURRENT_SESSION", "pytest"), os.environ.get("DSTACK_HOST_PYTHONS", ""))
        self._config = config
        self._key = f"dstack/lacking/{'-'.join(filter(None, session))}"
        self._ids: set[str] = set(config.cache.get(self._key, []))
        self._only = bool(config.getoption(SKIPPED_BEFORE))

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self._only:
            others = [item for item in items if item.nodeid not in self._ids]
            items[:] = [item for item in items if item.nodeid in self._ids]
            self._config.hook.pytest_deselected(items=others)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid
        if report.skipped and _LACKS in str(report.longrepr):
            self._ids.add(name)
        elif report.when == "call":
            self._ids.discard(name)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self._only and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.OK
        if not hasattr(self._config, "workerinput"):
            self._config.cache.set(self._key, sorted(self._ids))
