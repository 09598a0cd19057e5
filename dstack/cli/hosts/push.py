"""`dstack hosts push`: share the inventory of the project through the bucket."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from dstack.adapters.process_identity import machine_name, new_nonce, user_name
from dstack.app.maintenance.shared_inventory import latest_inventory, share_inventory
from dstack.cli.arguments import UNASKED_OPTION
from dstack.cli.command_session import open_session
from dstack.cli.hosts.hosts_session import PROJECT_HOSTS_FILE
from dstack.cli.questions import ask
from dstack.core.format.records import Inventory, at_machine
from dstack.errors import UsageError
from dstack.model import Host
from dstack.project.hosts.shared_hosts import private_setting, shared_part
from dstack.session.session import Session
from dstack.ui.terminal import clean


def push(
    hosts: Annotated[
        str | None, typer.Option("--hosts", metavar="FILE", help="Inventory to push instead of the project's.")
    ] = None,
    yes: Annotated[bool, UNASKED_OPTION] = False,
) -> None:
    """Share the project's .dstack/hosts.yaml through the bucket: where hosts are and what they may run.

    Entries with identity-file, jump, local, or a dir outside of ~ are one's own and stay here. Keys of hosts are not
    shared: everybody confirms them himself. Asks before hosts that somebody pushed are changed or dropped.
    """
    session = open_session(hosts_file=hosts)
    inventory = _to_push(session)
    latest = latest_inventory(session.bucket, session.keys)
    before = {host.name: host for host in latest.inventory.hosts} if latest.inventory else {}
    # A colleague may share a host that is private here: this push does not drop it.
    own_hosts = [before[host.name] for host in inventory if private_setting(host) is not None and host.name in before]
    shared = tuple(sorted((*shared_part(inventory), *own_hosts), key=lambda host: host.name))
    if not shared:
        raise UsageError("there is no host that can be shared", hint="`dstack hosts ls` lists the inventory")
    if shared == tuple(before.values()):
        print("the bucket has these hosts already")
        return
    lost = sorted(name for name, host in before.items() if host not in shared)
    if lost and latest.inventory is not None and not yes:
        who = at_machine(latest.inventory.user, latest.inventory.machine)
        ask(f"Change or drop {', '.join(lost)}, as {who} pushed them?", "`dstack hosts pull` shows them")
    session.storage.probe()
    made = Inventory(nonce=new_nonce(), user=user_name(), machine=machine_name(), pushed=time.time(), hosts=shared)
    if not share_inventory(session.bucket, session.keys, made, after=latest.number):
        raise UsageError("somebody else pushed at the same moment", hint="dstack hosts pull, then push again")
    print(clean(f"pushed {', '.join(host.name for host in shared)}; the others run: dstack hosts pull"))


def _to_push(session: Session) -> tuple[Host, ...]:
    """The hosts of the file to push; prints the names of private hosts, kept here. A personal file is pushed only with
    `--hosts`."""
    if session.hosts_file is None:
        path = session.root / PROJECT_HOSTS_FILE
        if not path.exists():
            hint = "`dstack hosts push --hosts ~/.dstack/hosts.yaml` pushes your own inventory"
            raise UsageError(f"this project has no {PROJECT_HOSTS_FILE}", hint=hint)
        session.hosts_file = str(path)
    inventory = tuple(host for host in session.inventory() if host.position is not None)
    for host in inventory:
        own = private_setting(host)
        if own is not None:
            print(clean(f"{host.name} stays here: {own} is your own (what is in ~/.ssh/config need not be in it)"))
    return inventory
