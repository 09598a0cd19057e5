"""The inventory shared by a team in its bucket: a numbered register, in which the highest number counts.

A shared inventory is hostile until checked by project/hosts/shared_hosts. The inventory says where to connect, never
how to log in, and no host is trusted for being listed: every person confirms the keys of hosts.
"""

from __future__ import annotations

from dataclasses import dataclass

from dstack.app.protocol.create_if_absent import create_now
from dstack.core.format.key_parser import inventory_number
from dstack.core.format.keys import MAX_INVENTORY, ProjectKeys
from dstack.core.format.records import Inventory, pack, unpack
from dstack.errors import BucketError
from dstack.ports import Bucket


@dataclass(frozen=True, slots=True, kw_only=True)
class LatestInventory:
    """The latest inventory of the bucket, and its number; 0 and None before the first."""

    number: int = 0
    inventory: Inventory | None = None


def latest_inventory(bucket: Bucket, keys: ProjectKeys) -> LatestInventory:
    """One list and one read; raises BucketError for a damaged inventory."""
    # The numbers in the keys count down, so the first name is the latest inventory.
    names = bucket.children(keys.hosts, limit=1)
    if not names:
        return LatestInventory()
    key = f"{keys.hosts}{names[0]}"
    number = inventory_number(names[0])
    body = bucket.get(key) if number is not None else None
    if number is None or body is None:
        raise BucketError(f"{key} is not a record of kind inventory", hint="remove the object and push again")
    return LatestInventory(number=number, inventory=unpack(Inventory, key, body))


def share_inventory(bucket: Bucket, keys: ProjectKeys, inventory: Inventory, *, after: int) -> bool:
    """Record the inventory under the number after `after` -> False when another person did so first. Nothing is
    overwritten."""
    if not 0 <= after < MAX_INVENTORY:
        raise BucketError(f"{keys.hosts} is full", hint="remove its objects and push again")
    return create_now(bucket, keys.inventory(after + 1), pack(inventory))
