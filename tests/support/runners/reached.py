"""A host with an open runner, as a coordinator has it."""

from __future__ import annotations

from typing import Any

from dstack.app.hosts.fleet import ReachedHost
from dstack.model import Host, HostFacts, HostName
from tests.support.records.specs import FACTS


def reached(runner: Any, facts: HostFacts = FACTS) -> ReachedHost:
    """`runner` answers as far as the test needs it."""
    return ReachedHost(host=Host(name=HostName("box")), facts=facts, runner=runner)
