"""`dstack hosts ls`: list the inventory."""

from __future__ import annotations

import sys
from typing import Annotated

from dstack.cli.arguments import HOSTS_OPTION
from dstack.cli.hosts.hosts_session import HostsSession
from dstack.model import Host
from dstack.ui.tables import Column, table

_LISTED = (
    Column(title="HOST", floor=8),
    Column(title="ADDRESS", floor=12),
    Column(title="USER"),
    Column(title="JUMP"),
    Column(title="SLOTS", right=True),
    Column(title="FROM", floor=12),
)


def ls(hosts: Annotated[str | None, HOSTS_OPTION] = None) -> None:
    """List the hosts as the inventory has them; nothing is connected."""
    inventory = HostsSession(hosts).inventory()
    sys.stdout.write(table(_LISTED, [_listed(host) for host in inventory], sys.stdout))


def _listed(host: Host) -> tuple[str, ...]:
    address = "this machine" if host.local else host.address or host.name
    if host.port is not None:
        address = f"{address}:{host.port}"
    place = f"{host.position.file}:{host.position.line}" if host.position else "default: no host is listed"
    return (host.name, address, host.user or "-", host.jump or "-", str(host.slots or "-"), place)
