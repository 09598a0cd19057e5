"""`dstack hosts rm`: remove a host."""

from __future__ import annotations

from typing import Annotated

import typer

from dstack.cli.hosts.hosts_session import HostsSession, hosts_file_of
from dstack.session import hosts_file

NAME = typer.Argument(metavar="NAME", help="Name of the host.", show_default=False)
PROJECT = typer.Option("--project", help="In the project's .dstack/hosts.yaml, not in ~/.dstack/hosts.yaml.")


def rm(name: Annotated[str, NAME], project: Annotated[bool, PROJECT] = False) -> None:
    """Remove a host from the inventory; its confirmed key stays."""
    written = hosts_file.prepare_remove(hosts_file_of(HostsSession(None), project), name)
    hosts_file.replace(written)
    print(f"removed {name} from {written.file.shown}")
