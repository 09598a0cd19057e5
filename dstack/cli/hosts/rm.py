"""`dstack hosts rm`: remove a host."""

from __future__ import annotations

from typing import Annotated

import typer

from dstack.cli.hosts import file
from dstack.cli.hosts.hosts_session import HostsSession, file_of

NAME = typer.Argument(metavar="NAME", help="Name of the host.", show_default=False)
PROJECT = typer.Option("--project", help="In the project's .dstack/hosts.yaml, not in ~/.dstack/hosts.yaml.")


def rm(name: Annotated[str, NAME], project: Annotated[bool, PROJECT] = False) -> None:
    """Remove a host from the inventory; its confirmed key stays."""
    written = file.prepare_remove(file_of(HostsSession(None), project), name)
    file.replace(written)
    print(f"removed {name} from {written.place.shown}")
