"""Options of the whole suite."""

import os
import signal

import pytest

pytest.register_assert_rewrite("tests.support")
pytest_plugins = [
    "tests.lacking",
    "tests.support.hosts.fixtures",
    "tests.support.runners.containers",
    "tests.support.runners.fixtures",
    "tests.support.runners.small_disk",
]

# A shell starts what it leaves in the background with Ctrl-C ignored, and every command of a test would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Each of some thousand commands would compile dstack and its libraries anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_report_header() -> str:
    from tests.support.simulator.schedules import HEADER

    return HEADER
