"""The composition root: the one module that knows both use cases and adapters.

Everything heavy is imported where it is first needed, so that `dstack ps` pays for nothing but a bucket.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dstack.adapters.bucket_open import open_bucket, probe_effort
from dstack.app.probe import check_format, ensure_probed
from dstack.core.keys import ProjectKeys
from dstack.core.records import Coordinator, RunRecord
from dstack.errors import SnapshotError
from dstack.ports import Bucket, CodeSource, RunnerPort, Screen, Transport

if TYPE_CHECKING:
    from dstack.adapters.git import GitCode
    from dstack.adapters.ssh import SshHosts
    from dstack.app.driver import Means
    from dstack.app.fleet import Fleet
    from dstack.app.performing import Performer
    from dstack.model import Host
    from dstack.project.planning import Project
    from dstack.project.settings import Settings


class Session:
    """One command in one project: what it reads, opened when first asked for."""

    def __init__(self, *, start: Path, home: Path, environ: Mapping[str, str], hosts_file: str | None) -> None:
        from dstack.project.locate import find_project

        self.root = find_project(start, home=home)
        self.home = home
        self.environ = environ
        self.hosts_file = hosts_file

    @cached_property
    def settings(self) -> Settings:
        from dstack.project.settings import read_settings

        return read_settings(home=self.home, root=self.root, environment=self.environ)

    @cached_property
    def name(self) -> str:
        """What the project is called in the bucket and on hosts."""
        from dstack.project.settings import project_name

        configured = self.settings.project
        return project_name(configured, None if configured else self._remote(), self.root)

    def _remote(self) -> str | None:
        """The URL of `origin`, whatever branch is checked out; None without one, or without git."""
        from dstack.adapters.git_place import configuration, remote_of

        try:
            return remote_of(configuration(self.root), None)
        except SnapshotError:
            return None

    @cached_property
    def bucket(self) -> Bucket:
        """The bucket, for reading: a new one is not made by looking at it. Raises BucketError for a later format."""
        bucket = open_bucket(self.settings.bucket, self.settings.options, self.home)
        check_format(bucket, writing=False)
        return bucket

    def probe_bucket(self) -> None:
        """Before the first write: a new bucket is probed, and refused where it does not exclude writers."""
        effort = probe_effort(self.bucket)
        ensure_probed(self.bucket, nonce=os.urandom(16).hex(), now=time.time(), effort=effort)

    def abort_uploads(self) -> int:
        """End uploads in parts below this project that were broken off long ago -> how many."""
        from dstack.adapters.uploads import abort_uploads

        return abort_uploads(self.settings.bucket, self.settings.options, self.keys.root)

    @cached_property
    def keys(self) -> ProjectKeys:
        return ProjectKeys.of(self.name)

    @cached_property
    def code(self) -> GitCode:
        from dstack.adapters.git import GitCode

        return GitCode(self.root, self.home / ".dstack" / "snapshots" / f"{self.name}.git")

    def project(self) -> Project:
        from dstack.project.planning import load_project

        return load_project(self.root)

    def inventory(self) -> tuple[Host, ...]:
        from dstack.project.inventory import read_inventory

        file = Path(self.hosts_file) if self.hosts_file else None
        return read_inventory(home=self.home, root=self.root, file=file)

    def require_run(self, name: str) -> RunRecord:
        """The run of that name or id; raises NotFoundError with the nearest names."""
        from dstack.app.overview import find_run

        return find_run(self.bucket, self.keys, name)

    def prefetch(self) -> None:
        """Begin to import what a run will need, while files are read and git works."""
        if any(not host.local for host in self.inventory()):
            from dstack.adapters.ssh_prefetch import prefetch

            prefetch()


def open_session(*, hosts_file: str | None = None) -> Session:
    """The session of the current folder; raises UsageError outside a project."""
    return Session(start=Path.cwd(), home=Path.home(), environ=os.environ, hosts_file=hosts_file)


class HostOpener:
    """Opens runners: by SSH or, for a local host, through a pipe. Owns the SSH connections of this process."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._ssh: SshHosts | None = None

    async def open(self, host: Host) -> RunnerPort:
        """A started runner on `host`; raises what its transport raises."""
        from dstack.adapters.runner_client import RunnerClient
        from dstack.adapters.runner_zipapp import bootstrap_source, runner_zipapp

        async def transport() -> Transport:
            if host.local:
                from dstack.adapters.local import open_local

                return await open_local(host, sys.executable)
            return await self._connections().open_transport(host)

        client = RunnerClient(
            host.name, transport, zipapp=runner_zipapp(), bootstrap=bootstrap_source(), directory=host.dir
        )
        await client.connect()
        return client

    def _connections(self) -> SshHosts:
        if self._ssh is None:
            from dstack.adapters.ssh import SshHosts

            inventory = {str(host.name): host for host in self._session.inventory()}
            self._ssh = SshHosts(inventory, note=lambda text: print(text, file=sys.stderr))
        return self._ssh

    async def close(self) -> None:
        if self._ssh is not None:
            await self._ssh.close()


@asynccontextmanager
async def fleet(session: Session) -> AsyncIterator[Fleet]:
    """The hosts of the inventory, none of them connected yet; all connections are closed at the end of the block."""
    from dstack.app.fleet import Fleet

    opener = HostOpener(session)
    hosts = Fleet(session.inventory(), opener.open)
    try:
        yield hosts
    finally:
        await hosts.close()
        await opener.close()


def make_means(session: Session, hosts: Fleet, *, screen: Screen, caller: Mapping[str, str]) -> Means:
    """All that a coordinator in this process works with."""
    from dstack.adapters.identity import boot_id, boottime, coordinator_alive, new_nonce
    from dstack.app.driver import Means
    from dstack.app.observing import Observer

    here = boot_id()
    observer = Observer(
        session.bucket, session.keys, sure=lambda other: coordinator_alive(other, here), boottime=boottime
    )
    code: CodeSource = session.code
    return Means(
        bucket=session.bucket,
        project=session.name,
        keys=session.keys,
        fleet=hosts,
        code=code,
        screen=screen,
        observer=observer,
        caller=caller,
        new_nonce=new_nonce,
    )


def make_performer(session: Session) -> Performer:
    """Performs steps that need no host, for commands that keep house; to be closed."""
    from dstack.adapters.identity import boot_id, boottime, coordinator_alive, new_nonce
    from dstack.app.observing import Observer
    from dstack.app.performing import Performer

    here = boot_id()
    observer = Observer(
        session.bucket, session.keys, sure=lambda other: coordinator_alive(other, here), boottime=boottime
    )
    return Performer(session.bucket, observer, new_nonce)


@contextmanager
def coordinator(session: Session) -> Iterator[Coordinator]:
    """This process as a coordinator: its lock is held until the end of the block, or of the process."""
    from dstack.adapters.identity import CoordinatorLock, boot_id, machine_name, new_nonce, user_name

    name = new_nonce()
    with CoordinatorLock(session.home, name) as lock:
        yield Coordinator(
            id=name,
            user=user_name(),
            machine=machine_name(),
            boot_id=boot_id(),
            pid=os.getpid(),
            lock=str(lock.path),
        )


class LogScreen:
    """The screen of a coordinator without a terminal: one line for each change, on standard output."""

    def job(self, workflow: str, status: str, host: str, note: str, took: float = 0.0) -> None:
        self.message(" ".join(part for part in (workflow, status, host, note) if part))

    def log(self, workflow: str, data: bytes) -> None:
        """Nobody watches: the log is in the bucket."""

    def progress(self, label: str, done: int, total: int) -> None:
        """Nobody watches."""

    def message(self, text: str) -> None:
        print(time.strftime("%Y-%m-%d %H:%M:%S"), text, flush=True)
