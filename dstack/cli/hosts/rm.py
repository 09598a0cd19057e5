"""`dstack hosts rm`: remove a host."""

from __future__ import annotations

from typing import Annotated

from dstack.cli.arguments import HOST_NAME_ARGUMENT, PROJECT_FILE_OPTION
from dstack.cli.hosts.hosts_session import HostsSession, hosts_file_of
from dstack.session import hosts_file


def rm(name: Annotated[str, HOST_NAME_ARGUMENT], project: Annotated[bool, PROJECT_FILE_OPTION] = False) -> None:
    """Remove a host from the inventory; its confirmed key stays."""
    written = hosts_file.prepare_remove(hosts_file_of(HostsSession(None), project), name)
    hosts_file.replace(written)
    print(f"removed {name} from {written.file.shown}")
