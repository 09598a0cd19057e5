"""All SSH connections: one for each host and process, every hop verified, one constant command.

Importing this costs the import of asyncssh (0.4 s), so import late, or ahead with `prefetch.prefetch`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from dstack.adapters.ssh.asyncssh_import import asyncssh  # before all that imports asyncssh by itself

# isort: split
from dstack.adapters.ssh.config import Hop, Route, SshSurroundings, resolve
from dstack.adapters.ssh.hop import Connection, connect, hasten
from dstack.adapters.ssh.known_hosts import ScannedKey, UnknownKeyError, confirm
from dstack.adapters.ssh.stream import SshTransport, start
from dstack.errors import HostError, HostUnreachableError
from dstack.model import Host
from dstack.wire import LAUNCHER

BOOTSTRAP_COMMAND = f'exec python3 -I -S -X utf8 -c "{LAUNCHER}"'
SSH_COMMANDS = (BOOTSTRAP_COMMAND,)
"""Every command ever sent over SSH. No command holds a value of a user's; all values go through stdin."""
MAX_SESSIONS = 8
"""Sessions on one connection; sshd allows 10 (MaxSessions), and people have sessions of their own."""


class SshHosts:
    """Opens and keeps connections: one for each hop and process, shared by all callers, jump hosts included.

    Belongs to one event loop. `note` is called once for each part of the SSH configuration not followed.
    """

    def __init__(
        self,
        inventory: Mapping[str, Host],
        *,
        around: SshSurroundings | None = None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._inventory = inventory
        self._around = around or SshSurroundings.here()
        self._note = note
        self._noted: set[str] = set()
        self._connections: dict[tuple[Hop, ...], asyncio.Task[Connection]] = {}
        self._channels: dict[tuple[Hop, ...], int] = {}

    async def open_transport(self, host: Host) -> SshTransport:
        """Connect to `host`, or use an open connection, and start the bootstrap.

        Raises HostKeyError for an unconfirmed key (nothing was sent then), HostUnreachableError naming the failed hop,
        HostError when the host starts no command, ConfigError or UsageError for the user's own mistakes.
        """
        route = await self._route(host)
        connection = await self._connection(route.hops, host.name)
        if self._channels.get(route.hops, 0) >= MAX_SESSIONS:
            raise HostError(host.name, f"{MAX_SESSIONS} sessions are open on its connection already")
        # Counted before the await: other tasks look at the number meanwhile.
        self._channels[route.hops] = self._channels.get(route.hops, 0) + 1
        try:
            hasten(connection.ssh)
            return await start(connection.ssh, host.name, BOOTSTRAP_COMMAND, lambda: self._release(route.hops))
        except BaseException as error:
            self._release(route.hops)
            if isinstance(error, asyncssh.ChannelOpenError) and connection.open:
                hint = "its sshd may allow few sessions (MaxSessions), or none but forwarding"
                raise HostError(host.name, f"it opens no session: {error.reason}", hint=hint) from None
            if isinstance(error, (asyncssh.Error, OSError)):
                raise HostUnreachableError(host.name, f"the connection was lost: {error}") from None
            raise

    async def scan_key(self, host: Host) -> list[ScannedKey]:
        """The first unconfirmed key on the way to `host`, for asking and `confirm`; [] when all keys are confirmed.

        A host behind an unconfirmed jump host is reached only after the jump host was confirmed, so ask again until the
        list is empty. Logs in when all keys are confirmed. Raises as `open_transport` does, ChangedKeyError and
        RevokedKeyError included: changed and revoked keys are never offered for confirmation.
        """
        route = await self._route(host)
        try:
            await self._connection(route.hops, host.name)
        except UnknownKeyError as error:
            return [error.scanned]
        return []

    def confirm(self, key: ScannedKey) -> None:
        """Write a key confirmed by the user into dstack's own known_hosts file."""
        confirm(self._around.confirmed, key)

    async def close(self) -> None:
        """Close every connection, the farthest hops first."""
        tasks = sorted(self._connections.items(), key=lambda item: -len(item[0]))
        self._connections.clear()
        for _, task in tasks:
            if not task.done():
                task.cancel()
            with contextlib.suppress(Exception, asyncio.CancelledError):
                await (await task).close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _route(self, host: Host) -> Route:
        # In a thread: `Match exec` and `ssh -G` run programs.
        route = await asyncio.to_thread(resolve, host, self._inventory, self._around)
        for text in route.notes:
            if text not in self._noted:
                self._noted.add(text)
                self._note(text)
        return route

    async def _connection(self, hops: tuple[Hop, ...], target: str) -> Connection:
        task = self._connections.get(hops)
        if task is None or (task.done() and not _usable(task)):
            task = asyncio.create_task(self._open(hops, target))
            task.add_done_callback(_take_note)
            self._connections[hops] = task
        # Shielded: who gives up waiting must not take the connection from the others.
        return await asyncio.shield(task)

    async def _open(self, hops: tuple[Hop, ...], target: str) -> Connection:
        before = await self._connection(hops[:-1], target) if len(hops) > 1 else None
        return await connect(hops[-1], before, self._around.home, target=target)

    def _release(self, hops: tuple[Hop, ...]) -> None:
        self._channels[hops] -= 1


def _usable(task: asyncio.Task[Connection]) -> bool:
    return not task.cancelled() and task.exception() is None and task.result().open


def _take_note(task: asyncio.Task[Connection]) -> None:
    """Take note of a failure without a waiting caller: asyncio would print the failure else."""
    if not task.cancelled():
        task.exception()
