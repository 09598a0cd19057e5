"""The session of `dstack hosts`, with or without a project, and the two files of hosts for changes."""

from __future__ import annotations

import os
from pathlib import Path

from dstack.cli.command_session import own_home, say
from dstack.errors import NotFoundError, UsageError
from dstack.model import Host
from dstack.project.locate import find_project
from dstack.session.hosts_file import HostsFile
from dstack.session.session import Session

PROJECT_HOSTS_FILE = ".dstack/hosts.yaml"


class HostsSession(Session):
    """A session with or without a project: outside of projects only the user's own inventory counts."""

    def __init__(self, hosts_file: str | None) -> None:
        home = own_home()
        self.project_folder = _project_folder(home)
        super().__init__(
            root=self.project_folder or home, home=home, environ=os.environ, hosts_file=hosts_file, notify=say
        )

    def require_host(self, name: str) -> Host:
        """The host of the inventory with this name; raises NotFoundError with the known names."""
        inventory = self.inventory()
        for host in inventory:
            if host.name == name:
                return host
        known = ", ".join(host.name for host in inventory)
        raise NotFoundError(
            f"there is no host {name!r} in the inventory", hint=f"it has {known}; `dstack hosts add` adds"
        )


def _project_folder(home: Path) -> Path | None:
    try:
        return find_project(Path.cwd(), home=home)
    except UsageError:
        return None


def hosts_file_of(session: HostsSession, project: bool) -> HostsFile:
    if not project:
        return HostsFile(path=session.home / ".dstack" / "hosts.yaml", shown="~/.dstack/hosts.yaml", private=True)
    if session.project_folder is None:
        raise UsageError("--project: no project here", hint="go to your project, or leave --project out")
    return HostsFile(path=session.project_folder / PROJECT_HOSTS_FILE, shown=PROJECT_HOSTS_FILE, private=False)
