"""The register of inventories in the bucket."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from dstack.adapters.bucket.folder import FolderBucket
from dstack.app.maintenance.shared_inventory import latest_inventory, share_inventory
from dstack.core.format.keys import MAX_INVENTORY, ProjectKeys
from dstack.core.format.records import Inventory, SharedHost
from dstack.errors import BucketError

KEYS = ProjectKeys.of("p")


def inventory(name: str) -> Inventory:
    return Inventory(nonce=name, user="bob", machine="desk", pushed=1.0, hosts=(SharedHost(name=name),))


@pytest.fixture
def bucket(tmp_path: Path) -> FolderBucket:
    return FolderBucket(tmp_path)


def test_the_last_one_counts_and_none_is_overwritten(bucket: FolderBucket) -> None:
    assert latest_inventory(bucket, KEYS).number == 0
    for number in range(12):
        assert share_inventory(bucket, KEYS, inventory(f"h{number}"), after=number)
    assert latest_inventory(bucket, KEYS).inventory == inventory("h11")
    assert not share_inventory(bucket, KEYS, inventory("x"), after=3)
    assert (latest_inventory(bucket, KEYS).number, len(bucket.list(KEYS.hosts))) == (12, 12)


def test_of_those_who_push_at_once_one_wins(bucket: FolderBucket) -> None:
    won: list[str] = []

    def push(name: str) -> None:
        if share_inventory(bucket, KEYS, inventory(name), after=0):
            won.append(name)

    threads = [threading.Thread(target=push, args=(f"h{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert latest_inventory(bucket, KEYS).inventory == inventory(won[0])


@pytest.mark.parametrize("name", ["x", "0000001", "00000a", "000001/y"])
def test_what_is_no_inventory_is_told(bucket: FolderBucket, name: str) -> None:
    bucket.create(f"{KEYS.hosts}{name}", b"{}")
    with pytest.raises(BucketError, match="not a record of kind inventory"):
        latest_inventory(bucket, KEYS)


def test_a_register_that_somebody_filled_is_told(bucket: FolderBucket) -> None:
    with pytest.raises(BucketError, match="is full"):
        share_inventory(bucket, KEYS, inventory("h"), after=MAX_INVENTORY)
