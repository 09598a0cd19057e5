"""The parts of this process that drive runs and keep house."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dstack.core.format.records import Coordinator
from dstack.ports import CodeSource, Screen
from dstack.session.session import Session

if TYPE_CHECKING:
    from dstack.app.coordination.context import CoordinationContext
    from dstack.app.hosts.fleet import Fleet
    from dstack.app.maintenance.blocking_driver import BlockingPerformer
    from dstack.app.maintenance.prune_plan import Pruner
    from dstack.app.protocol.liveness import Observer
    from dstack.core.format.keys import AttemptKeys


def make_context(
    session: Session, fleet: Fleet, me: Coordinator, *, screen: Screen, caller: Mapping[str, str]
) -> CoordinationContext:
    """The context of a coordinator in this process."""
    from dstack.adapters.process_identity import new_nonce
    from dstack.app.coordination.context import CoordinationContext
    from dstack.app.coordination.heartbeat import HeartbeatWriter

    code: CodeSource = session.code
    return CoordinationContext(
        bucket=session.bucket,
        project=session.name,
        keys=session.keys,
        fleet=fleet,
        code=code,
        screen=screen,
        observer=_observer(session),
        caller=caller,
        new_nonce=new_nonce,
        heart=HeartbeatWriter(session.bucket, session.keys.heartbeat(me.id), screen.message),
    )


def make_performer(session: Session) -> BlockingPerformer:
    """A performer of steps without hosts, for housekeeping; the caller closes the performer."""
    from dstack.adapters.process_identity import new_nonce
    from dstack.app.maintenance.blocking_driver import BlockingPerformer

    return BlockingPerformer(session.bucket, _observer(session), new_nonce)


def _observer(session: Session) -> Observer:
    """Watches other coordinators from this machine."""
    from dstack.adapters.process_identity import boot_id, boottime, coordinator_alive
    from dstack.app.protocol.liveness import Observer

    here = boot_id()
    return Observer(session.bucket, session.keys, sure=lambda other: coordinator_alive(other, here), boottime=boottime)


@contextmanager
def own_coordinator(session: Session) -> Iterator[Coordinator]:
    """This process as a coordinator: the lock is held until the end of the block, or of the process."""
    from dstack.adapters.process_identity import CoordinatorLock, boot_id, machine_name, new_nonce, user_name

    name = new_nonce()
    with CoordinatorLock(session.home / ".dstack", name) as lock:
        yield Coordinator(
            id=name,
            user=user_name(),
            machine=machine_name(),
            boot_id=boot_id(),
            pid=os.getpid(),
            lock=str(lock.path),
        )


@contextmanager
def read_pinned(session: Session, attempts: Sequence[AttemptKeys]) -> Iterator[None]:
    """Keep every prune away from the generations of `attempts` inside the block; raises as `pinned` does."""
    from dstack.app.maintenance.pinned_read import pinned

    performer = make_performer(session)
    try:
        with (
            own_coordinator(session) as me,
            pinned(session.bucket, session.keys, performer, me, attempts=attempts, notify=session.tell),
        ):
            yield
    finally:
        performer.close()


@contextmanager
def open_housekeeper(session: Session) -> Iterator[Pruner]:
    """The housekeeper of the session's project, as this user; all threads end with the block."""
    from dstack.adapters.process_identity import user_name
    from dstack.app.maintenance.prune_plan import Pruner

    performer = make_performer(session)
    try:
        yield Pruner(session.bucket, session.keys, performer, user=user_name())
    finally:
        performer.close()
