"""Mutants of the messages between a coordinator and a runner."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        name="unknown-field",
        breaks="a request with a field that nobody knows is done as if the field were not there",
        file="dstack/wire/message_form.py",
        old="        if not tolerant:\n            for name in data:",
        new="        if not tolerant:\n            for name in ():",
        tests=("tests/unit/runner/test_requests.py", "tests/unit/wire/test_messages.py"),
    ),
    Mutant(
        name="no-earlier-version",
        breaks="a file of the spool that an earlier version wrote is damaged to this one, for want of a new field",
        file="dstack/wire/message_form.py",
        old="instead = each.absent if tolerant else each.default",
        new="instead = each.default",
        tests=("tests/unit/wire/test_messages.py", "tests/system/crashes/test_earlier_version.py"),
    ),
)
