"""The composition root: the one module that knows both use cases and adapters.

Everything heavy is imported where it is first needed, so that `dstack ps` pays for nothing but a bucket.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from dstack.adapters.bucket.opener import at_once, missing_folder, open_bucket, probe_effort
from dstack.adapters.bucket.remote_errors import redacted
from dstack.adapters.bucket.stall_notice import WaitingBucket
from dstack.app.maintenance.bucket_probe import Format, check_format, ensure_probed, require_writer
from dstack.core.format.keys import ProjectKeys
from dstack.core.format.records import Coordinator, RunRecord
from dstack.errors import BucketError, NotPrivateError, SnapshotError
from dstack.ports import Bucket, CodeSource, RunnerPort, Screen, Transport
from dstack.private_folder import UntrustedError, secure

if TYPE_CHECKING:
    from dstack.adapters.git.snapshots import GitCode
    from dstack.adapters.ssh.connections import SshHosts
    from dstack.app.coordination.context import Means
    from dstack.app.hosts.fleet import Fleet
    from dstack.app.maintenance.blocking_driver import Performer
    from dstack.app.queries.coordinators import Look
    from dstack.cli.secret_values import SecretSources
    from dstack.model import Host
    from dstack.project.plan import Project
    from dstack.project.settings import Settings


WAS_OPEN = "%s was open to other accounts; it is closed now, and only yours"


def say(text: str) -> None:
    """One line on standard error."""
    from dstack.ui.terminal import clean

    print(clean(text), file=sys.stderr, flush=True)


def own_home() -> Path:
    """The user's home, once `~/.dstack` is closed to other accounts; what was open until now is said.

    Every command gets the home here. Raises UntrustedError where `~/.dstack`, or what dstack executes or believes in
    it, belongs to another account or may be changed by one.
    """
    home = Path.home()
    closed: list[str] = []
    try:
        closed = secure(str(home / ".dstack"))
    except FileNotFoundError:
        pass
    except UntrustedError as error:
        closed = error.closed
        raise
    except OSError as error:
        raise NotPrivateError(f"{home / '.dstack'} cannot be used: {error.strerror}", hint="look at it") from None
    finally:
        for path in closed:
            say(WAS_OPEN % path)
    return home


class Session:
    """A command in a project: settings, bucket and runs, each opened at its first use."""

    _format: Format | None = None
    _say: Callable[[str], None] = staticmethod(say)

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

    @property
    def folder_name(self) -> str:
        """What the project would be called by its folder; "" where it is called so, or by its config.yaml."""
        from dstack.project.settings import project_name

        name = project_name(None, None, self.root)
        return name if not self.settings.project and name != self.name else ""

    def _remote(self) -> str | None:
        """The URL of `origin`, whatever branch is checked out; None without one, or without git."""
        from dstack.adapters.git.repository import configuration, remote_of

        try:
            return remote_of(configuration(self.root), None)
        except SnapshotError:
            return None

    @cached_property
    def bucket(self) -> Bucket:
        """The bucket, for reading: a new one is not made by looking at it.

        Raises BucketError for a later format, and for a folder that somebody named and that is not there: where its
        file system is not mounted, all that is written would go to another disk.
        """
        bucket = WaitingBucket(self._store, redacted(self.settings.bucket), self.tell)
        self._format = check_format(bucket)
        if self._format is None:
            self.require_folder()
        return bucket

    def require_folder(self) -> None:
        """Raise BucketError where the bucket is a folder that somebody named and that is not there."""
        if self.settings.named and (path := missing_folder(self._store)):
            hint = f"mount it, or make it: dstack init --bucket {quote(path)}"
            raise BucketError(f"the bucket {path} does not exist here", hint=hint)

    @cached_property
    def _store(self) -> Bucket:
        """The bucket itself, whose kind can be seen."""
        return open_bucket(self.settings.bucket, self.settings.options, self.home)

    def tell(self, text: str) -> None:
        """One line for the person at the terminal, wherever that is shown now."""
        self._say(text)

    @contextmanager
    def saying(self, where: Callable[[str], None]) -> Iterator[None]:
        """Until the end of the block, `where` is told of a bucket that does not answer, from any thread."""
        self._say = where
        try:
            yield
        finally:
            self._say = say

    @property
    def at_once(self) -> int:
        """Reads that are made at a time where many are to be made."""
        return at_once(self._store)

    def probe_bucket(self) -> None:
        """Before the first write: a new bucket is probed, and refused where it does not exclude writers."""
        effort, bucket = probe_effort(self._store), self.bucket
        if self._format is not None:
            require_writer(self._format)
            return
        ensure_probed(bucket, nonce=os.urandom(16).hex(), now=time.time(), effort=effort)

    def abort_uploads(self, *, now: float) -> int:
        """End uploads in parts below this project that were broken off long ago -> how many. `now` is the time of day
        by the store's clock."""
        from dstack.adapters.bucket.s3_uploads import abort_uploads

        return abort_uploads(self.settings.bucket, self.settings.options, self.keys.root, now=now)

    @cached_property
    def keys(self) -> ProjectKeys:
        return ProjectKeys.of(self.name)

    @cached_property
    def code(self) -> GitCode:
        from dstack.adapters.git.snapshots import GitCode

        return GitCode(self.root, self.home / ".dstack" / "snapshots" / f"{self.name}.git")

    @cached_property
    def secrets(self) -> SecretSources:
        """Where the secrets of this project are found."""
        from dstack.cli.secret_values import SecretSources

        return SecretSources(home=self.home, root=self.root, project=self.name)

    def project(self) -> Project:
        from dstack.project.plan import load_project

        return load_project(self.root)

    def inventory(self) -> tuple[Host, ...]:
        from dstack.project.hosts.inventory import read_inventory

        file = Path(self.hosts_file) if self.hosts_file else None
        return read_inventory(home=self.home, root=self.root, file=file)

    def require_run(self, asked: str | None, *, named: bool = True) -> RunRecord:
        """The run of that name, beginning of a name, or id; None or "-": the last one of this user on this machine.

        A run that was not written out is named on standard error, with `named`. Raises NotFoundError and UsageError as
        app/finding does.
        """
        from dstack.app.queries.run_lookup import LAST, find_run, last_run

        if asked is not None and asked != LAST:
            return find_run(self.bucket, self.keys, asked)
        from dstack.adapters.identity import machine_name, user_name

        record = last_run(self.bucket, self.keys, user_name(), machine_name(), now=time.time())
        if named:
            say(f"your last run: {record.name} ({record.workflow})")
        return record

    @cached_property
    def _look(self) -> Look:
        from dstack.app.queries.coordinators import Look

        def sure(other: Coordinator) -> bool | None:
            from dstack.adapters.identity import boot_id, coordinator_alive

            return coordinator_alive(other, boot_id())

        return Look(self.bucket, self.keys, sure=sure, now=time.time())

    def look(self) -> Look:
        """The look of this command at who looks after runs; commands over runs that are final do without."""
        return self._look

    def prefetch(self) -> None:
        """Begin to import what a run will need, while files are read and git works."""
        if any(not host.local for host in self.inventory()):
            from dstack.adapters.ssh.prefetch import prefetch

            prefetch()


def open_session(*, hosts_file: str | None = None) -> Session:
    """The session of the current folder; raises UsageError outside a project."""
    return Session(start=Path.cwd(), home=own_home(), environ=os.environ, hosts_file=hosts_file)


class HostOpener:
    """Opens runners: by SSH or, for a local host, through a pipe. Owns the SSH connections of this process."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._ssh: SshHosts | None = None

    async def open(self, host: Host) -> RunnerPort:
        """A started runner on `host`; raises what its transport raises."""
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
        for path in client.closed:
            self._session.tell(f"{host.name}: {WAS_OPEN % path}")
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
            self._ssh = SshHosts(inventory, note=lambda text: print(text, file=sys.stderr))
        return self._ssh

    async def close(self) -> None:
        if self._ssh is not None:
            await self._ssh.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """The hosts of a command, and what opens connections to them."""

    fleet: Fleet
    opener: HostOpener


@asynccontextmanager
async def hosts(session: Session, *, only: Collection[str] | None = None) -> AsyncIterator[Hosts]:
    """The hosts of the inventory (those named in `only`), none of them connected yet; all connections are closed at
    the end of the block."""
    from dstack.app.hosts.fleet import Fleet

    opener = HostOpener(session)
    chosen = tuple(host for host in session.inventory() if only is None or host.name in only)
    fleet = Fleet(chosen, opener.open)
    try:
        yield Hosts(fleet=fleet, opener=opener)
    finally:
        await fleet.close()
        await opener.close()


def make_means(session: Session, fleet: Fleet, me: Coordinator, *, screen: Screen, caller: Mapping[str, str]) -> Means:
    """All that a coordinator in this process works with."""
    from dstack.adapters.identity import boot_id, boottime, coordinator_alive, new_nonce
    from dstack.app.coordination.context import Means
    from dstack.app.coordination.heartbeat import Heart
    from dstack.app.protocol.liveness import Observer

    here = boot_id()
    observer = Observer(
        session.bucket, session.keys, sure=lambda other: coordinator_alive(other, here), boottime=boottime
    )
    code: CodeSource = session.code
    return Means(
        bucket=session.bucket,
        project=session.name,
        keys=session.keys,
        fleet=fleet,
        code=code,
        screen=screen,
        observer=observer,
        caller=caller,
        new_nonce=new_nonce,
        heart=Heart(session.bucket, session.keys.heartbeat(me.id), screen.message),
    )


def make_performer(session: Session) -> Performer:
    """Performs steps that need no host, for commands that keep house; to be closed."""
    from dstack.adapters.identity import boot_id, boottime, coordinator_alive, new_nonce
    from dstack.app.maintenance.blocking_driver import Performer
    from dstack.app.protocol.liveness import Observer

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
    with CoordinatorLock(session.home / ".dstack", name) as lock:
        yield Coordinator(
            id=name,
            user=user_name(),
            machine=machine_name(),
            boot_id=boot_id(),
            pid=os.getpid(),
            lock=str(lock.path),
        )
