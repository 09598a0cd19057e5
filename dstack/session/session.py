"""A project in the use of a process.

Every heavy module is imported at its first use, so that `dstack ps` pays for nothing but a bucket.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dstack.core.format.keys import ProjectKeys
from dstack.core.format.records import Coordinator, RunRecord
from dstack.errors import SnapshotError
from dstack.ports import Bucket
from dstack.session.session_bucket import Storage

if TYPE_CHECKING:
    from dstack.adapters.git.snapshots import GitCode
    from dstack.app.queries.coordinators import Presence
    from dstack.model import Host
    from dstack.project.plan import Project
    from dstack.project.settings import Settings
    from dstack.session.secret_values import SecretSources


class Session:
    """A project in the use of this process: settings, bucket and runs, each opened at the first use."""

    def __init__(
        self,
        *,
        root: Path,
        home: Path,
        environ: Mapping[str, str],
        hosts_file: str | None,
        notify: Callable[[str], None],
    ) -> None:
        self.root = root
        self.home = home
        self.environ = environ
        self.hosts_file = hosts_file
        self._notify = notify

    @cached_property
    def settings(self) -> Settings:
        from dstack.project.settings import read_settings

        return read_settings(home=self.home, root=self.root, environment=self.environ)

    @cached_property
    def name(self) -> str:
        """The name of the project in the bucket and on hosts."""
        from dstack.project.settings import project_name

        configured = self.settings.project
        return project_name(configured, None if configured else self._remote(), self.root)

    @property
    def folder_name(self) -> str:
        """The name of the project by its folder alone; "" where this is the name, or config.yaml gives the name."""
        from dstack.project.settings import project_name

        name = project_name(None, None, self.root)
        return name if not self.settings.project and name != self.name else ""

    def _remote(self) -> str | None:
        """The URL of the remote `origin`, on every branch; None without a URL, or without git."""
        from dstack.adapters.git.repository import configuration, remote_url

        try:
            return remote_url(configuration(self.root), None)
        except SnapshotError:
            return None

    @cached_property
    def storage(self) -> Storage:
        """The bucket of the project, not opened yet. A folder named by the user has to exist."""
        settings = self.settings
        return Storage(
            settings.bucket, settings.options, home=self.home, notify=self.tell, must_exist=bool(settings.is_chosen)
        )

    @property
    def bucket(self) -> Bucket:
        """The bucket of the project, for reading; raises BucketError as `Storage.bucket` does."""
        return self.storage.bucket

    def tell(self, text: str) -> None:
        """Show the user a line, in the present place for lines of the face."""
        self._notify(text)

    @contextmanager
    def notices_to(self, notify: Callable[[str], None]) -> Iterator[None]:
        """Until the end of the block, `notify` gets the lines of `tell`, from any thread."""
        before, self._notify = self._notify, notify
        try:
            yield
        finally:
            self._notify = before

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
        from dstack.session.secret_values import SecretSources

        return SecretSources(home=self.home, root=self.root, project=self.name)

    def project(self) -> Project:
        from dstack.project.plan import load_project

        return load_project(self.root)

    def inventory(self) -> tuple[Host, ...]:
        from dstack.project.hosts.inventory import read_inventory

        file = Path(self.hosts_file) if self.hosts_file else None
        return read_inventory(home=self.home, root=self.root, file=file)

    def require_run(self, name: str | None, *, named: bool = True) -> RunRecord:
        """The run with the name, beginning of a name, or id `name`; None or "-": the last run of this user on this
        machine.

        With `named` the user is told the name of the last run. Raises NotFoundError and UsageError as `find_run` and
        `last_run` do.
        """
        from dstack.app.queries.run_lookup import OWN_LAST_RUN, find_run, last_run

        if name is not None and name != OWN_LAST_RUN:
            return find_run(self.bucket, self.keys, name)
        from dstack.adapters.process_identity import machine_name, user_name

        record = last_run(self.bucket, self.keys, user_name(), machine_name(), now=time.time())
        if named:
            self.tell(f"your last run: {record.name} ({record.workflow})")
        return record

    @cached_property
    def _look(self) -> Presence:
        from dstack.app.queries.coordinators import Presence

        def sure(other: Coordinator) -> bool | None:
            from dstack.adapters.process_identity import boot_id, coordinator_alive

            return coordinator_alive(other, boot_id())

        return Presence(self.bucket, self.keys, sure=sure, now=time.time())

    def look(self) -> Presence:
        """The look of this session at the coordinators of open runs; views of final runs do without."""
        return self._look
