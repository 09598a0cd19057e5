"""Reading artifacts for a person while others may prune: pinned for as long as it takes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from dstack.app.maintenance.blocking_driver import BlockingPerformer
from dstack.app.maintenance.bucket_probe import writable
from dstack.app.maintenance.reader_heartbeat import ReaderHeartbeat
from dstack.app.protocol import prune_steps
from dstack.app.transfer.committed_manifest import was_pruned
from dstack.core.format.keys import AttemptKeys, JobKeys
from dstack.core.format.records import Coordinator, Pin
from dstack.errors import BucketError, NotFoundError
from dstack.model import Nonce
from dstack.session.coordination import make_performer, own_coordinator
from dstack.session.session import Session
from dstack.ui.terminal import clean


@contextmanager
def read_pinned(session: Session, attempts: Sequence[AttemptKeys]) -> Iterator[None]:
    """Nobody prunes the generations of these attempts inside the block.

    Raises NotFoundError when one of them is being pruned already. Where this person may not write to the bucket it
    works without pins, and says so: every byte is checked anyway.
    """
    performer = make_performer(session)
    held: list[JobKeys] = []
    try:
        with own_coordinator(session) as me:
            heartbeat = ReaderHeartbeat(session.bucket, session.keys.heartbeat(me.id))
            try:
                try:
                    heartbeat.begin()
                    _hold(session, performer, me, attempts=attempts, held=held)
                except BucketError as error:
                    warning = f"reading without a pin, so that `dstack prune` may interfere: {error}"
                    print(clean(warning), file=sys.stderr)
                yield
            finally:
                _release(performer, heartbeat, me, held)
    finally:
        performer.close()


def _hold(
    session: Session,
    performer: BlockingPerformer,
    me: Coordinator,
    *,
    attempts: Sequence[AttemptKeys],
    held: list[JobKeys],
) -> None:
    """Pin each generation under the id of this process; what is held is added to `held`."""
    writable(session.bucket)
    pin = Pin(nonce=me.id, reader=me)
    for keys in dict.fromkeys(each.generation for each in attempts):
        if performer.take(prune_steps.hold(keys, pin)):
            held.append(keys)
        elif was_pruned(session.bucket, keys):
            raise NotFoundError("these artifacts are being pruned", hint="run the workflow again to make them")
        # Else something of them was found damaged: what is whole is read while it is there.


def _release(
    performer: BlockingPerformer, heartbeat: ReaderHeartbeat, me: Coordinator, held: Sequence[JobKeys]
) -> None:
    # Where the bucket does not answer, a prune sees that this process has ended.
    with suppress(BucketError):
        for keys in held:
            performer.take(prune_steps.release(keys, Nonce(me.id)))
    with suppress(BucketError):
        heartbeat.end()
