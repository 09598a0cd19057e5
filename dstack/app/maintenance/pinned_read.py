"""Reads of artifacts while others may prune: pinned for as long as the read takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from dstack.app.maintenance.blocking_driver import BlockingPerformer
from dstack.app.maintenance.bucket_probe import writable
from dstack.app.maintenance.reader_heartbeat import ReaderHeartbeat
from dstack.app.protocol import prune_steps
from dstack.app.transfer.committed_manifest import was_pruned
from dstack.core.format.keys import AttemptKeys, JobKeys, ProjectKeys
from dstack.core.format.records import Coordinator, Pin
from dstack.errors import BucketError, NotFoundError
from dstack.model import Nonce
from dstack.ports import Bucket


@contextmanager
def pinned(
    bucket: Bucket,
    keys: ProjectKeys,
    performer: BlockingPerformer,
    me: Coordinator,
    *,
    attempts: Sequence[AttemptKeys],
    notify: Callable[[str], None],
) -> Iterator[None]:
    """Keep every prune away from the generations of `attempts` inside the block, by pins and a heartbeat of `me`.

    Raises NotFoundError when a prune of one generation has begun already. Where this user may not write to the bucket,
    `notify` hears so, and the block goes on without pins: every byte is checked anyway.
    """
    held: list[JobKeys] = []
    heartbeat = ReaderHeartbeat(bucket, keys.heartbeat(me.id))
    try:
        try:
            # Before the pins: a prune takes a reader without a heartbeat for one that has left.
            heartbeat.begin()
            _hold(bucket, performer, me, attempts=attempts, held=held)
        except BucketError as error:
            notify(f"reading without a pin, so that `dstack prune` may interfere: {error}")
        yield
    finally:
        _release(performer, heartbeat, me, held)


def _hold(
    bucket: Bucket,
    performer: BlockingPerformer,
    me: Coordinator,
    *,
    attempts: Sequence[AttemptKeys],
    held: list[JobKeys],
) -> None:
    """Pin each generation under the id of `me`; the pinned ones are added to `held`."""
    writable(bucket)
    pin = Pin(nonce=me.id, reader=me)
    for keys in dict.fromkeys(each.generation for each in attempts):
        if performer.take(prune_steps.pin_for_reader(keys, pin)):
            held.append(keys)
        elif was_pruned(bucket, keys):
            raise NotFoundError("these artifacts are being pruned", hint="run the workflow again to make them")
        # Else the generation was found damaged: its whole artifacts are read while they are there.


def _release(
    performer: BlockingPerformer, heartbeat: ReaderHeartbeat, me: Coordinator, held: Sequence[JobKeys]
) -> None:
    # Where the bucket does not answer, a prune sees that this process has ended.
    with suppress(BucketError):
        for keys in held:
            performer.take(prune_steps.unpin_reader(keys, Nonce(me.id)))
    with suppress(BucketError):
        heartbeat.end()
