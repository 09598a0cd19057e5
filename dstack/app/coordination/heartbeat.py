"""The heartbeat of one coordinator: a single object, for any number of runs and attempts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from dstack.app.protocol.lease import BEAT_INTERVAL_S
from dstack.bounds import MAX_REMARK
from dstack.core.heartbeats import MAX_WAITS, Heartbeat, encode_beat
from dstack.errors import BucketError
from dstack.model import RunId, WorkflowName
from dstack.ports import Bucket

FIRST_BEAT_RETRY_S = 2.0
"""Seconds after which the first beat is tried again."""


class AttemptHosts(Protocol):
    """The findings of a coordinator at the hosts of attempts, by nonce; for people who read the heartbeat."""

    def unreachable(self) -> Mapping[str, float]:
        """Since when hosts do not answer, in seconds since the epoch."""
        ...

    def sightings(self) -> Mapping[str, str]:
        """The sightings of attempts of other accounts: values of `core.sightings.Sighting`."""
        ...


class HeartbeatWriter:
    """Beats under `key` from the first `begin` until the last `async with` block is left; belongs to one event loop.

    `begin` comes before this coordinator claims or adopts anything, and the object goes with the last block: no
    heartbeat beside a claim or an adoption means that the coordinator has left. A bucket that is away for a while is no
    reason to end: `trouble` gets the reason, and the next beat is tried.
    """

    def __init__(
        self,
        bucket: Bucket,
        key: str,
        trouble: Callable[[str], None],
        *,
        until: Callable[[], float | None] = lambda: None,
    ) -> None:
        """`until` gives the end of the credentials of the beats, where the end is known."""
        self._bucket = bucket
        self._key = key
        self._trouble = trouble
        self._until = until
        self._hosts: list[AttemptHosts] = []
        self._waits: dict[RunId, dict[WorkflowName, str]] = {}
        self._standby: frozenset[str] = frozenset()
        self._holders = 0
        self._first = asyncio.Lock()
        self._beating: asyncio.Task[None] | None = None
        self._writing: asyncio.Future[None] | None = None
        """The write of the last beat, perhaps under way; None before the first beat."""

    async def __aenter__(self) -> None:
        self._holders += 1

    async def __aexit__(self, *_: object) -> None:
        self._holders -= 1
        if self._holders or self._writing is None:
            return
        beating, self._beating = self._beating, None
        writing, self._writing = self._writing, None
        if beating is not None:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
        # Nothing stops the thread of a write: a write that came after the delete would leave a heartbeat behind.
        await asyncio.gather(writing, return_exceptions=True)
        try:
            await asyncio.to_thread(self._bucket.delete, self._key)
        except BucketError:
            pass  # who looks at it waits for the silence then

    def report_hosts(self, hosts: AttemptHosts) -> None:
        """Each beat says from now on which attempts of `hosts` cannot be reached, and the sightings of attempts of
        other accounts."""
        self._hosts.append(hosts)

    def withdraw_hosts(self, hosts: AttemptHosts) -> None:
        """The next beat says nothing of `hosts` any more."""
        if hosts in self._hosts:
            self._hosts.remove(hosts)

    def report_wait(self, run: RunId, workflow: WorkflowName, why: str) -> None:
        """Each beat says from now on why a job of the run waits; with "" nothing more of the job."""
        jobs = self._waits.setdefault(run, {})
        jobs.pop(workflow, None)
        if why and sum(map(len, self._waits.values())) < MAX_WAITS:
            jobs[workflow] = why[:MAX_REMARK]
        if not jobs:
            del self._waits[run]

    def forget_run(self, run: RunId) -> None:
        """The next beat says nothing of the run's jobs any more."""
        self._waits.pop(run, None)

    def report_standby(self, hosts: Iterable[str]) -> None:
        """Each beat says from now on that these hosts stand by, beside earlier hosts."""
        self._standby |= frozenset(hosts)

    async def begin(self) -> None:
        """Return once a beat stands in the bucket, and go on beating."""
        if self._beating is not None:
            return
        async with self._first:
            # Jobs of the run claim at the same time: the first one beats, and the others wait for that beat.
            if self._beating is None:
                while not await self._beat(0):  # noqa: ASYNC110 - the bucket has no event
                    await asyncio.sleep(FIRST_BEAT_RETRY_S)
                self._beating = asyncio.create_task(self._go_on())

    async def _go_on(self) -> None:
        number = 0
        while True:
            await asyncio.sleep(BEAT_INTERVAL_S)
            number += 1
            await self._beat(number)

    async def _beat(self, number: int) -> bool:
        # Times are for people: `ps` says since when a coordinator that crashed elsewhere has been silent, or why.
        beat = Heartbeat(
            at=time.time(),
            until=self._until() or 0.0,
            unreachable={nonce: since for each in self._hosts for nonce, since in each.unreachable().items()},
            sightings={nonce: sighting for each in self._hosts for nonce, sighting in each.sightings().items()},
            waits={run: {str(name): why for name, why in jobs.items()} for run, jobs in self._waits.items()},
            standby=tuple(sorted(self._standby)),
        )
        body = encode_beat(number, beat)
        self._writing = asyncio.ensure_future(asyncio.to_thread(self._bucket.put, self._key, body))
        try:
            await asyncio.shield(self._writing)
        except BucketError as error:
            self._trouble(str(error))
            return False
        return True
