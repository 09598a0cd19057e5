"""A host with an open runner, as a coordinator has it."""

from __future__ import annotations

from typing import Any

from dstack.app.hosts.fleet import Reached
from dstack.model import Host, HostFacts, HostName

FACTS = HostFacts(
    boot_id="b",
    hostname="box",
    user="alice",
    uid=1000,
    python="3.9.2",
    platform="Linux",
    cpus=8,
    memory=1 << 34,
    gpus=(),
    git="2.39",
    docker=False,
    disk_free=1 << 40,
    dir="/home/alice/.dstack",
    place="here",
    machine="m1",
)


def reached(runner: Any, facts: HostFacts = FACTS) -> Reached:
    """`runner` answers as far as the test needs it."""
    return Reached(host=Host(name=HostName("box")), facts=facts, runner=runner)
