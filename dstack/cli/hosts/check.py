"""`dstack hosts check`: connect, and show the condition of each host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from dstack.cli.arguments import HOSTS_OPTION
from dstack.cli.hosts.hosts_session import HostsSession
from dstack.model import Host


def check(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One host; without it, all.")] = None,
    hosts: Annotated[str | None, HOSTS_OPTION] = None,
) -> int:
    """Connect to hosts and show what they have; each problem comes with its way out.

    Exits with 3 when a host cannot be reached, 4 when nobody confirmed its key, 5 when it lacks what runs need, 6 when
    its account cannot read and write the bucket: then it runs jobs, and needs this machine for that.
    """
    # Imported here on purpose: `dstack hosts ls` needs no asyncio.
    from dstack.cli.hosts.host_report import report

    session = HostsSession(hosts)
    chosen: Sequence[Host] = (session.require_host(name),) if name else session.inventory()
    return report(session, chosen)
