"""The inventory that a team shares in its bucket: a register, of which the highest number counts.

What is in it is hostile until project/hostshare has looked at it. It says where to connect, never how to log in, and
no host is believed for being in it: everybody confirms the keys of hosts himself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dstack.app.coordination.run import create_record
from dstack.core.format.keys import ProjectKeys
from dstack.core.format.records import Inventory, pack, unpack
from dstack.errors import BucketError
from dstack.ports import Bucket

LAST = 10**6 - 1
"""The highest number; keys hold what is left to 10^6, so that the latest comes first in a list."""
_NUMBER = re.compile(r"[0-9]{6}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """The latest inventory of the bucket, and its number; 0 and None before the first."""

    number: int = 0
    inventory: Inventory | None = None


def latest_inventory(bucket: Bucket, keys: ProjectKeys) -> Shared:
    """One list and one read; raises BucketError for what is no inventory."""
    names = bucket.children(keys.hosts, limit=1)
    if not names:
        return Shared()
    key = f"{keys.hosts}{names[0]}"
    body = bucket.get(key) if _NUMBER.fullmatch(names[0]) else None
    if body is None:
        raise BucketError(f"{key} is not a record of kind inventory", hint="remove the object and push again")
    return Shared(number=10**6 - int(names[0]), inventory=unpack(Inventory, key, body))


def share_inventory(bucket: Bucket, keys: ProjectKeys, inventory: Inventory, *, after: int) -> bool:
    """Record it as the one after number `after` -> False when somebody else did so first. Nothing is overwritten."""
    if not 0 <= after < LAST:
        raise BucketError(f"{keys.hosts} is full", hint="remove its objects and push again")
    return create_record(bucket, f"{keys.hosts}{10**6 - after - 1:06d}", pack(inventory))
