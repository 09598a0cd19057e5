"""Connections to the hosts of a session."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dstack.ports import RunnerPort, Transport
from dstack.session.home import WAS_OPEN_TEXT
from dstack.session.session import Session

if TYPE_CHECKING:
    from dstack.adapters.ssh.connections import SshHosts
    from dstack.app.hosts.fleet import Fleet
    from dstack.model import Host


class HostOpener:
    """Opens runners: by SSH or, for a local host, through a pipe. Owns the SSH connections of this process."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._ssh: SshHosts | None = None

    async def open(self, host: Host) -> RunnerPort:
        """A started runner on `host`; raises the errors of the transport."""
        from dstack.adapters.runner.client import RunnerClient
        from dstack.adapters.runner.zipapp import bootstrap_source, runner_zipapp

        client = RunnerClient(
            host.name,
            lambda: self.transport(host),
            zipapp=runner_zipapp(),
            bootstrap=bootstrap_source(),
            directory=host.dir,
        )
        await client.connect()
        # The bootstrap on the host closed these folders; only this side has a user to tell.
        for path in client.closed:
            self._session.tell(f"{host.name}: {WAS_OPEN_TEXT % path}")
        return client

    async def transport(self, host: Host) -> Transport:
        """A freshly started bootstrap on `host`."""
        if host.local:
            from dstack.adapters.runner.local import open_local

            return await open_local(host, sys.executable)
        return await self._connections().open_transport(host)

    def _connections(self) -> SshHosts:
        if self._ssh is None:
            from dstack.adapters.ssh.connections import SshHosts

            inventory = {str(host.name): host for host in self._session.inventory()}
            self._ssh = SshHosts(inventory, note=self._session.tell)
        return self._ssh

    async def close(self) -> None:
        if self._ssh is not None:
            await self._ssh.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """The hosts of a session, and the opener of connections to hosts."""

    fleet: Fleet
    opener: HostOpener


@asynccontextmanager
async def open_hosts(session: Session, *, only: Collection[str] | None = None) -> AsyncIterator[Hosts]:
    """The hosts of the inventory, or the hosts named in `only`, none connected yet; all connections are closed at the
    end of the block."""
    from dstack.app.hosts.fleet import Fleet

    opener = HostOpener(session)
    chosen = tuple(host for host in session.inventory() if only is None or host.name in only)
    fleet = Fleet(chosen, opener.open)
    try:
        yield Hosts(fleet=fleet, opener=opener)
    finally:
        await fleet.close()
        await opener.close()


def prefetch_ssh(session: Session) -> None:
    """Begin to import the SSH library beside other work, where a host of the inventory is reached by SSH."""
    if any(not host.local for host in session.inventory()):
        from dstack.adapters.ssh.import_ahead import prefetch

        prefetch()
