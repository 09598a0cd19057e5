"""`dstack hosts`: the inventory, and the condition of each host. Works in any folder."""

from __future__ import annotations

from dstack.cli.lazy import Lazy, LazyGroup

group = LazyGroup(
    "hosts",
    {
        "ls": Lazy(target="dstack.cli.hosts.ls:ls", help="List the inventory."),
        "add": Lazy(target="dstack.cli.hosts.add:add", help="Add a host, confirming its key."),
        "check": Lazy(target="dstack.cli.hosts.check:check", help="Connect, and show what each host has."),
        "rm": Lazy(target="dstack.cli.hosts.rm:rm", help="Remove a host."),
        "push": Lazy(target="dstack.cli.hosts.push:push", help="Share the inventory through the bucket."),
        "pull": Lazy(target="dstack.cli.hosts.pull:pull", help="Take the inventory that was shared."),
    },
    about="List, add, check, remove and share hosts.",
)
