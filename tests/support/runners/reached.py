"""A host with an open runner, as a coordinator has it."""

from __future__ import annotations

from typing import Any

from dstack.app.hosts.fleet import Reached
from dstack.model import Host, HostFacts, HostName
from tests.support.records.specs import FACTS


def reached(runner: Any, facts: HostFacts = FACTS) -> Reached:
    """`runner` answers as far as the test needs it."""
    return Reached(host=Host(name=HostName("box")), facts=facts, runner=runner)
