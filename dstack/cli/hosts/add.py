"""`dstack hosts add`: add a host, and confirm the key of the host."""

from __future__ import annotations

from typing import Annotated

import typer

from dstack.cli.arguments import HOST_NAME_ARGUMENT, PROJECT_FILE_OPTION
from dstack.cli.hosts.hosts_session import HostsSession, hosts_file_of
from dstack.errors import UsageError
from dstack.model import Host, HostName
from dstack.project.hosts.inventory import name_fault
from dstack.session import hosts_file

ADDRESS_OPTION = typer.Option(metavar="ADDR", help="Default: NAME, as ~/.ssh/config has it.")
CONFIRMED_KEY_OPTION = typer.Option(
    "--yes", metavar="SHA256:…", help="Confirm the key with this fingerprint without asking."
)


def add(
    name: Annotated[str, HOST_NAME_ARGUMENT],
    *,
    address: Annotated[str | None, ADDRESS_OPTION] = None,
    user: Annotated[str | None, typer.Option(metavar="USER")] = None,
    port: Annotated[int | None, typer.Option(metavar="PORT", min=1, max=65535)] = None,
    identity_file: Annotated[str | None, typer.Option(metavar="FILE", help="Private key to log in with.")] = None,
    jump: Annotated[str | None, typer.Option(metavar="HOST", help="Host to go through, as [user@]host[:port].")] = None,
    slots: Annotated[int | None, typer.Option(metavar="N", min=1, help="Jobs at a time.")] = None,
    dir_: Annotated[str | None, typer.Option("--dir", metavar="DIR", help="Folder of dstack on the host.")] = None,
    local: Annotated[bool, typer.Option("--local", help="This machine itself, without SSH.")] = False,
    project: Annotated[bool, PROJECT_FILE_OPTION] = False,
    yes: Annotated[list[str] | None, CONFIRMED_KEY_OPTION] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Write the entry without connecting.")] = False,
) -> None:
    """Add a host: connect to it, show the fingerprint of its key and ask once, then write the entry.

    For a host that is listed already, only its key is asked about. Without a terminal, a key that is not confirmed
    ends the command with exit code 4.

    Example: dstack hosts add gpu-1 --address 10.0.0.5 --user ubuntu
    """
    host = Host(
        name=HostName(name),
        address=address,
        user=user,
        port=port,
        identity_file=identity_file,
        jump=jump,
        slots=slots,
        dir=dir_,
        local=local,
    )
    _add(host, project=project, confirmed=tuple(yes or ()), offline=offline)


def _add(host: Host, *, project: bool, confirmed: tuple[str, ...], offline: bool) -> None:
    """Check for every refusal first; write the entry last."""
    fault = name_fault(host.name)
    if fault:
        raise UsageError(fault)
    session = HostsSession(None)
    listed = next((known for known in session.inventory() if known.position and known.name == host.name), None)
    if listed is not None and host != Host(name=host.name):
        place = f"{listed.position.file}:{listed.position.line}" if listed.position else "the inventory"
        raise UsageError(
            f"host {host.name} is listed already at {place}", hint=f"edit it there, or `dstack hosts rm {host.name}`"
        )
    # Edited before the connection is made: what cannot be written is refused at once.
    written = None if listed is not None else hosts_file.prepare_add(hosts_file_of(session, project), host)
    if not (offline or host.local):
        # Imported here on purpose: connecting needs asyncio and the SSH library.
        from dstack.cli.hosts.key_questions import confirm_keys

        confirm_keys(session.inventory(), listed or host, confirmed)
    if written is not None:
        hosts_file.replace(written)
        print(f"added {host.name} to {written.file.shown}")
    elif listed is not None:
        print(f"{host.name}: its key is confirmed")
