"""`dstack hosts`: the inventory, and what each host has. Works in any folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from dstack.cli.arguments import HOSTS
from dstack.cli.command_session import own_home, say
from dstack.cli.hosts import file
from dstack.cli.lazy import Lazy, LazyGroup
from dstack.errors import NotFoundError, UsageError
from dstack.model import Host, HostName
from dstack.project.hosts.inventory import name_fault
from dstack.project.locate import find_project
from dstack.session.session import Session
from dstack.ui.tables import Column, table

_LISTED = (
    Column(title="HOST", floor=8),
    Column(title="ADDRESS", floor=12),
    Column(title="USER"),
    Column(title="JUMP"),
    Column(title="SLOTS", right=True),
    Column(title="FROM", floor=12),
)
NAME = typer.Argument(metavar="NAME", help="Name of the host.", show_default=False)
ADDRESS = typer.Option(metavar="ADDR", help="Default: NAME, as ~/.ssh/config has it.")
YES = typer.Option("--yes", metavar="SHA256:…", help="Confirm the key with this fingerprint without asking.")
PROJECT = typer.Option("--project", help="In the project's .dstack/hosts.yaml, not in ~/.dstack/hosts.yaml.")


class HostsSession(Session):
    """A session that needs no project: outside one only the user's own inventory counts."""

    def __init__(self, hosts_file: str | None) -> None:
        home = own_home()
        self.project_folder = _project_folder(home)
        super().__init__(
            root=self.project_folder or home, home=home, environ=os.environ, hosts_file=hosts_file, notify=say
        )

    def named(self, name: str) -> Host:
        """The host of that name; raises NotFoundError with the names there are."""
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


def ls(hosts: Annotated[str | None, HOSTS] = None) -> None:
    """List the hosts as the inventory has them; nothing is connected."""
    inventory = HostsSession(hosts).inventory()
    sys.stdout.write(table(_LISTED, [_listed(host) for host in inventory], sys.stdout))


def _listed(host: Host) -> tuple[str, ...]:
    address = "this machine" if host.local else host.address or host.name
    if host.port is not None:
        address = f"{address}:{host.port}"
    place = f"{host.position.file}:{host.position.line}" if host.position else "default: no host is listed"
    return (host.name, address, host.user or "-", host.jump or "-", str(host.slots or "-"), place)


def add(
    name: Annotated[str, NAME],
    *,
    address: Annotated[str | None, ADDRESS] = None,
    user: Annotated[str | None, typer.Option(metavar="USER")] = None,
    port: Annotated[int | None, typer.Option(metavar="PORT", min=1, max=65535)] = None,
    identity_file: Annotated[str | None, typer.Option(metavar="FILE", help="Private key to log in with.")] = None,
    jump: Annotated[str | None, typer.Option(metavar="HOST", help="Host to go through, as [user@]host[:port].")] = None,
    slots: Annotated[int | None, typer.Option(metavar="N", min=1, help="Jobs at a time.")] = None,
    dir_: Annotated[str | None, typer.Option("--dir", metavar="DIR", help="Folder of dstack on the host.")] = None,
    local: Annotated[bool, typer.Option("--local", help="This machine itself, without SSH.")] = False,
    project: Annotated[bool, PROJECT] = False,
    yes: Annotated[list[str] | None, YES] = None,
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
    """Everything that can be refused is looked at first; the entry is written last."""
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
    written = None if listed is not None else file.prepare_add(_file(session, project), host)
    if not (offline or host.local):
        # Here and below: connecting needs asyncio, listing does not.
        from dstack.cli.hosts import host_check

        host_check.confirm_keys(session.inventory(), listed or host, confirmed)
    if written is not None:
        file.replace(written)
        print(f"added {host.name} to {written.place.shown}")
    elif listed is not None:
        print(f"{host.name}: its key is confirmed")


def rm(name: Annotated[str, NAME], project: Annotated[bool, PROJECT] = False) -> None:
    """Remove a host from the inventory; its confirmed key stays."""
    written = file.prepare_remove(_file(HostsSession(None), project), name)
    file.replace(written)
    print(f"removed {name} from {written.place.shown}")


def check(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One host; without it, all.")] = None,
    hosts: Annotated[str | None, HOSTS] = None,
) -> None:
    """Connect to hosts and show what they have; each problem comes with its way out.

    Exits with 3 when a host cannot be reached, 4 when nobody confirmed its key, 5 when it lacks what runs need, 6 when
    its account cannot read and write the bucket: then it runs jobs, and needs this machine for that.
    """
    from dstack.cli.hosts import host_check

    session = HostsSession(hosts)
    chosen: Sequence[Host] = (session.named(name),) if name else session.inventory()
    raise SystemExit(host_check.report(session, chosen))


def _file(session: HostsSession, project: bool) -> file.Place:
    if not project:
        return file.Place(path=session.home / ".dstack" / "hosts.yaml", shown="~/.dstack/hosts.yaml", private=True)
    if session.project_folder is None:
        raise UsageError("--project: no project here", hint="go to your project, or leave --project out")
    return file.Place(path=session.project_folder / ".dstack" / "hosts.yaml", shown=".dstack/hosts.yaml", private=False)


group = LazyGroup(
    "hosts",
    {
        "ls": Lazy(target="dstack.cli.hosts.commands:ls", help="List the inventory."),
        "add": Lazy(target="dstack.cli.hosts.commands:add", help="Add a host, confirming its key."),
        "check": Lazy(target="dstack.cli.hosts.commands:check", help="Connect, and show what each host has."),
        "rm": Lazy(target="dstack.cli.hosts.commands:rm", help="Remove a host."),
        "push": Lazy(target="dstack.cli.hosts.share:push", help="Share the inventory through the bucket."),
        "pull": Lazy(target="dstack.cli.hosts.share:pull", help="Take the inventory that was shared."),
    },
    about="List, add, check, remove and share hosts.",
)
