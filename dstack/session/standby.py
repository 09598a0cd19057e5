"""Leaves an attended run to hosts in stand-by, so that hosts go on with the run when this machine falls silent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dstack.app.coordination.handover import HandoverResult
from dstack.app.coordination.heartbeat import HeartbeatWriter
from dstack.app.hosts.fleet import Fleet
from dstack.core.format.records import Coordinator, RunRecord
from dstack.core.placement import names_text
from dstack.errors import DstackError
from dstack.model import JobStatus
from dstack.ports import Screen

if TYPE_CHECKING:
    from dstack.session.handover import RunHandover

STANDBY_DELAY_S = 5.0
"""Seconds from the start of the first job until hosts are asked: a shorter run asks no host."""
MAX_HOST_LOOKS = 10
"""Looks for hosts newly reached; a host reached after the last look is left out."""
LOOK_CONNECT_S = 10.0
"""Seconds for hosts to be reached at each look."""
RENEW_BEFORE_S = 300.0
"""Seconds before the end of lent credentials at which hosts get new credentials."""
STANDBY_LOOK_S = 60.0
"""Seconds between two looks for late hosts, and for the end of lent credentials."""
STATES_PAST_START = (JobStatus.RUNNING, JobStatus.QUEUED)
"""A job with one of these states is past the start, or waits for other jobs: a hand-over does not slow the job."""


class StartScreen:
    """A `Screen` in front of another screen; the event `start` is set when the first job has begun, or waits for a
    slot."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self.start = asyncio.Event()

    def job(
        self, workflow: str, status: str, host: str, note: str, took: float = 0.0, *, reused_from: str = ""
    ) -> None:
        if status in STATES_PAST_START:
            self.start.set()
        self._screen.job(workflow, status, host, note, took, reused_from=reused_from)

    def log(self, workflow: str, data: bytes) -> None:
        self._screen.log(workflow, data)

    def progress(self, label: str, done: int, total: int) -> None:
        self._screen.progress(label, done, total)

    def message(self, text: str) -> None:
        self._screen.message(text)


class Standby:
    """An attended run on the way to hosts in stand-by; every failure becomes a line on the screen."""

    def __init__(
        self, open_handover: Callable[[], RunHandover], fleet: Fleet, record: RunRecord, *, screen: StartScreen
    ) -> None:
        """`open_handover` is called once the run has gone on for a while, so that its imports do not slow the start."""
        self._open_handover = open_handover
        self._fleet = fleet
        self._record = record
        self._screen = screen
        self._reached_then: frozenset[str] = frozenset()
        self._until: float | None = None
        self._line = ""

    async def keep(self, me: Coordinator, heart: HeartbeatWriter) -> None:
        """Hand the begun run over, also to late hosts, and again before lent credentials end.

        Goes on until cancelled, when the run ends or is left. `me` is the coordinator whose silence the hosts wait for.
        """
        # This machine cannot stand by for itself: it sleeps together with the coordinator.
        if all(link.host.local for link in self._fleet.links.values()):
            return
        await self._screen.start.wait()
        # Whoever finds no heartbeat takes the run up.
        await heart.begin()
        await asyncio.sleep(STANDBY_DELAY_S)
        looks = 0
        while True:
            looks += 1
            if (looks <= MAX_HOST_LOOKS and await self._is_news()) or self._is_due():
                await self._try(me, heart)
            await asyncio.sleep(STANDBY_LOOK_S)

    async def _is_news(self) -> bool:
        """Whether a host is newly reached since the last hand-over."""
        # Whoever came back to a run has asked no host so far.
        await self._fleet.ready(LOOK_CONNECT_S)
        await self._fleet.wait_for_tries(LOOK_CONNECT_S)
        return bool(self._reached() - self._reached_then)

    def _is_due(self) -> bool:
        return self._until is not None and self._until - RENEW_BEFORE_S <= time.time() < self._until

    async def _try(self, me: Coordinator, heart: HeartbeatWriter) -> None:
        try:
            await self._hand(me, heart)
        except DstackError as error:
            self._say(f"no host stands by: {error}")
        except Exception as error:
            # Stand-by is an extra of the run: no failure of it may end the run.
            self._say(f"no host stands by: {type(error).__name__}: {error}; report this")

    def _reached(self) -> frozenset[str]:
        return frozenset(name for name, link in self._fleet.links.items() if link.reached)

    async def _hand(self, me: Coordinator, heart: HeartbeatWriter) -> None:
        # Before the hand-over, which may fail: a failing host is not asked again at every look.
        self._reached_then = self._reached()
        handover = self._open_handover()
        try:
            ready = await handover.ready(self._record)
            handed = await handover.hand(ready, self._record, attendant=me)
        finally:
            await handover.close()
        # The first of several ends counts: then new credentials are due.
        self._until = min((end for _, end in handed.until), default=self._until)
        heart.report_standby(handed.taken)
        self._say(outlook(handed))

    def _say(self, line: str) -> None:
        if line and line != self._line:
            self._line = line
            self._screen.message(line)


def outlook(handed: HandoverResult) -> str:
    """The hosts that go on when this machine falls silent, and why other hosts do not; "" without anything to say."""
    why = next((each.why for each in handed.left if each.why), "")
    if not handed.taken:
        return f"the run needs this machine: {why}" if why else ""
    taken = _hosts_text(handed.taken)
    if not handed.left:
        return f"{taken} would go on without this machine: it may be shut"
    rest = _hosts_text([each.name for each in handed.left])
    return f"{taken} would go on without this machine, {rest} would not{f': {why}' if why else ''}"


def _hosts_text(names: Sequence[str]) -> str:
    return names_text([str(name) for name in names])
