"""Reading artifacts for a person while others may prune: pinned for as long as it takes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dstack.app.maintenance.blocking_driver import Performer
from dstack.app.maintenance.bucket_probe import writable
from dstack.app.protocol import prune_steps
from dstack.app.protocol.lease import BEAT
from dstack.app.transfer.committed_manifest import was_pruned
from dstack.core.format.keys import AttemptKeys, JobKeys
from dstack.core.format.records import Coordinator, Pin
from dstack.errors import BucketError, NotFoundError
from dstack.model import Fingerprint, Nonce
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
    stop = threading.Event()
    try:
        with own_coordinator(session) as me:
            beating = threading.Thread(target=_beat, args=(session, me, stop), daemon=True)
            try:
                # Before the pin: a reader without a heartbeat is one that has left.
                session.bucket.put(session.keys.heartbeat(me.id), b'{"beat":0}')
                _hold(session, performer, me, attempts=attempts, held=held)
                beating.start()
            except BucketError as error:
                print(clean(f"reading without a pin, so that `dstack prune` may interfere: {error}"), file=sys.stderr)
            try:
                yield
            finally:
                stop.set()
                if beating.is_alive():
                    beating.join()
                _release(session, performer, me, held)
    finally:
        performer.close()


def _hold(
    session: Session,
    performer: Performer,
    me: Coordinator,
    *,
    attempts: Sequence[AttemptKeys],
    held: list[JobKeys],
) -> None:
    """Pin each generation under the id of this process; what is held is added to `held`."""
    writable(session.bucket)
    pin = Pin(nonce=me.id, reader=me)
    for keys in dict.fromkeys(_generation(session, each) for each in attempts):
        if performer.take(prune_steps.hold(keys, pin)):
            held.append(keys)
        elif was_pruned(session.bucket, keys):
            raise NotFoundError("these artifacts are being pruned", hint="run the workflow again to make them")
        # Else something of them was found damaged: what is whole is read while it is there.


def _generation(session: Session, attempt: AttemptKeys) -> JobKeys:
    _, fingerprint, number = attempt.generation.rstrip("/").rsplit("/", 2)
    return session.keys.job(Fingerprint(fingerprint), int(number))


def _beat(session: Session, me: Coordinator, stop: threading.Event) -> None:
    """The sign of life for whoever prunes on another machine."""
    number = 0
    while not stop.wait(BEAT):
        number += 1
        try:
            session.bucket.put(session.keys.heartbeat(me.id), b'{"beat":%d}' % number)
        except BucketError:
            pass  # the pull itself says what is wrong with the bucket


def _release(session: Session, performer: Performer, me: Coordinator, held: Sequence[JobKeys]) -> None:
    try:
        for keys in held:
            performer.take(prune_steps.release(keys, Nonce(me.id)))
        session.bucket.delete(session.keys.heartbeat(me.id))
    except BucketError:
        pass  # who prunes sees that this process has ended
