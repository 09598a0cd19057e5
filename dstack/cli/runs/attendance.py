"""Looks after a recorded run in this process, or leaves it to one in the background."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dstack.adapters.log_screen import LogScreen
from dstack.app.coordination.handover import Handed
from dstack.app.coordination.heartbeat import Heart
from dstack.app.coordination.run import Coordination
from dstack.app.hosts.fleet import Fleet
from dstack.app.hosts.prospects import Prospects
from dstack.app.queries.runs import run_view
from dstack.cli.progress_note import telling
from dstack.cli.runs.standby import Standby, StartScreen
from dstack.core.format.records import Coordinator, Final, RunRecord
from dstack.errors import BucketError, DstackError
from dstack.model import JobSpec, RunStatus
from dstack.ports import Screen
from dstack.private_folder import make_folder, open_file
from dstack.session.coordination import make_means, own_coordinator
from dstack.session.hosts import Hosts, open_hosts
from dstack.session.session import Session
from dstack.ui.jsonout import run_json
from dstack.ui.screen import open_screen
from dstack.ui.terminal import clean
from dstack.ui.times import clock_text

if TYPE_CHECKING:
    from dstack.cli.runs.handover import Handing

DAMAGED = BucketError.exit_code
EXIT = {RunStatus.SUCCEEDED: 0, RunStatus.FAILED: 1, RunStatus.STOPPED: 1, RunStatus.LOST: 1}
DETACHED = 130
SLOW_HOSTS = 10.0
"""Seconds that hosts have to be reached when a run is left to them: who is not there then gets no part of it."""
LEAVING = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
"""What detaches: Ctrl-C, a closed terminal, and a polite end of this process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attendance:
    """How a run is looked after: values of the caller's environment, the inventory file, and what is printed."""

    session: Session
    caller: Mapping[str, str] = field(default_factory=dict, repr=False)
    jobs: Sequence[JobSpec] = ()
    """Those that are to run, which hosts must be able to; what others run already needs no host here."""
    as_json: bool = False
    renews: bool = False
    """Whether the hosts first get the run once more: the credentials that they had been lent are over."""
    stands_by: bool = False
    """Whether hosts get the run to stand by: it is this user's own, and nobody else works on it."""


async def attend(attendance: Attendance, recorded: Callable[[], RunRecord], *, needs_host: bool) -> int:
    """Reach the hosts, then record the run and bring it to its end on this screen -> exit code.

    `recorded` records the run, or gives the one that was; it is called once a host is reached, so that nothing is
    recorded when none can be.
    """
    async with open_hosts(attendance.session) as hosts:
        if needs_host:
            await reach(hosts.fleet, attendance.jobs)
        record = await asyncio.to_thread(recorded)
        if attendance.renews:
            await _renew(attendance, record, hosts)
        return await _follow(attendance, record, hosts)


async def leave(
    attendance: Attendance, planned: RunRecord, recorded: Callable[[], RunRecord]
) -> tuple[RunRecord, Handed]:
    """Reach the hosts, record the run, and leave it to their coordinators, and to one of this machine for the rest.

    Whatever takes time on the way to a host comes before the record.
    """
    async with open_hosts(attendance.session) as hosts:
        await reach(hosts.fleet, attendance.jobs)
        return await leave_to(attendance, planned, recorded, hosts)


async def _renew(attendance: Attendance, record: RunRecord, hosts: Hosts) -> None:
    """Hand the run to its hosts again, with credentials that are good now, and say what came of it."""
    try:
        _, handed = await _hand(attendance, record, lambda: record, hosts)
        why = "; ".join(why for _, why in handed.left if why) or "none of them is reached"
    except DstackError as error:
        handed, why = Handed(taken=(), left=()), str(error)
    told = lent(handed, record.name) if handed.taken else [f"the hosts got no new credentials: {why}"]
    for line in told:
        print(clean(line), file=sys.stderr)


async def leave_to(
    attendance: Attendance, planned: RunRecord, recorded: Callable[[], RunRecord], hosts: Hosts
) -> tuple[RunRecord, Handed]:
    """Leave a run to the coordinators of its hosts, and to one of this machine for the rest."""
    record, handed = await _hand(attendance, planned, recorded, hosts)
    if handed.left or not handed.taken:
        spawn_coordinator(attendance, record, [name for name, _ in handed.left] if handed.taken else None)
    return record, handed


async def _hand(
    attendance: Attendance, planned: RunRecord, recorded: Callable[[], RunRecord], hosts: Hosts
) -> tuple[RunRecord, Handed]:
    from dstack.cli.runs.handover import Handing

    handing = Handing(attendance.session, hosts, attendance.caller)
    try:
        with telling("handing the run to its hosts"):
            await asyncio.to_thread(attendance.session.probe_bucket)
            # Whoever only watched has asked no host so far.
            await hosts.fleet.ready(SLOW_HOSTS)
            await hosts.fleet.tried(SLOW_HOSTS)
            ready = await handing.ready(planned)
            record = await asyncio.to_thread(recorded)
            return record, await handing.hand(ready, record)
    finally:
        await handing.close()


async def reach(fleet: Fleet, jobs: Sequence[JobSpec]) -> None:
    """Try all hosts; raises what says that none can be used, or that none can run one of the workflows.

    Where only silent hosts might, that is said on standard error, and they are waited for.
    """
    with telling(f"connecting to {fleet.named()}"):
        await fleet.connect()
        await Prospects(fleet).require_all(jobs, lambda text: print(clean(text), file=sys.stderr, flush=True))


async def _follow(attendance: Attendance, record: RunRecord, hosts: Hosts) -> int:
    with (
        open_screen(record, quiet=attendance.as_json) as screen,
        attendance.session.notices_to(_in_loop(screen.message)),
    ):
        final = await _until_interrupted(attendance, record, hosts=hosts, screen=screen)
    if final is None:
        await _detach(attendance, record, hosts)
        return DETACHED
    if attendance.as_json:
        print_json(attendance.session, record)
    return DAMAGED if any(outcome.damaged for outcome in final.jobs) else EXIT[final.status]


def _in_loop(show: Callable[[str], None]) -> Callable[[str], None]:
    """`show` for any thread: called by the event loop, never once that is closed."""
    loop = asyncio.get_running_loop()

    def give(text: str) -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(show, text)

    return give


async def _detach(attendance: Attendance, record: RunRecord, hosts: Hosts) -> None:
    """Leave the run, also where the terminal is gone: nobody may end this half-way."""
    for number in LEAVING:
        signal.signal(number, signal.SIG_IGN)
    _, handed = await leave_to(attendance, record, lambda: record, hosts)
    with suppress(OSError):
        print(f"detached: {record.name} {where_it_goes_on(handed)}", file=sys.stderr)
        for line in [*left_out(handed), *lent(handed, record.name)]:
            print(f"  {line}", file=sys.stderr)
        print(f"  dstack attach {record.name}    comes back to it", file=sys.stderr)
        print(f"  dstack stop {record.name}      ends it", file=sys.stderr)


def where_it_goes_on(handed: Handed) -> str:
    """`goes on …`, and what that means for this machine."""
    if not handed.taken:
        return "goes on in the background of this machine"
    taken = ", ".join(handed.taken)
    if not handed.left:
        return f"goes on by itself on {taken}: this machine may be shut"
    rest = ", ".join(name for name, _ in handed.left)
    return f"goes on by itself on {taken}, and on {rest} as long as this machine is awake"


def left_out(handed: Handed) -> list[str]:
    """Why hosts do not go on by themselves, a line for each host with a reason."""
    return [f"{name}: {clean(why.removeprefix(f'{name}: '))}" for name, why in handed.left if why]


def lent(handed: Handed, run: str) -> list[str]:
    """How long the hosts can write to the bucket with the credentials that they were lent, and what then is to do."""

    def moment(end: float) -> str:
        return clock_text("%H:%M" if end < time.time() + 12 * 3600 else "%Y-%m-%d %H:%M", end)

    return [
        f"{name} has your credentials for the bucket until {moment(end)}: what ends later waits there for"
        f" `dstack attach {run}`"
        for name, end in handed.until
    ]


async def _until_interrupted(
    attendance: Attendance, record: RunRecord, *, hosts: Hosts, screen: Screen
) -> Final | None:
    """The summary of the run, None when Ctrl-C came first, or the terminal was closed."""
    session = attendance.session
    start_screen = StartScreen(screen)
    with own_coordinator(session) as me:
        means = make_means(session, hosts.fleet, me, screen=start_screen, caller=attendance.caller)
        standby = asyncio.create_task(_keep_standby(attendance, record, hosts, start_screen, me=me, heart=means.heart))
        work = asyncio.create_task(Coordination(means, record, me).finish())
        interrupted = asyncio.Event()
        waiting = asyncio.create_task(interrupted.wait())
        loop = asyncio.get_running_loop()
        for number in LEAVING:
            loop.add_signal_handler(number, interrupted.set)
        try:
            await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work.done() else None
        finally:
            for number in LEAVING:
                loop.remove_signal_handler(number)
            for task in (work, waiting, standby):
                task.cancel()
            await asyncio.gather(work, waiting, standby, return_exceptions=True)


async def _keep_standby(
    attendance: Attendance,
    record: RunRecord,
    hosts: Hosts,
    screen: StartScreen,
    *,
    me: Coordinator,
    heart: Heart,
) -> None:
    """Leave the run to its hosts in stand-by, beside its coordination here."""

    def handing() -> Handing:
        from dstack.cli.runs.handover import Handing

        return Handing(attendance.session, hosts, attendance.caller)

    if attendance.stands_by:
        await Standby(handing, hosts.fleet, record, screen=screen).keep(me, heart)


def print_json(session: Session, record: RunRecord) -> None:
    """The run as one JSON object, alone on standard output."""
    print(run_json(run_view(session.bucket, session.keys, record)))


def spawn_coordinator(attendance: Attendance, record: RunRecord, only: Sequence[str] | None = None) -> None:
    """Start a coordinator that outlives this process and its terminal; it takes the caller's values from its stdin.

    `only` are the hosts that it drives; the others have coordinators of their own.
    """
    session = attendance.session
    folder = session.home / ".dstack" / "coordinators"
    make_folder(str(folder))
    # -P: it begins in the project's folder, whose modules must not stand in for Python's.
    command = [sys.executable, "-P", "-m", "dstack", "_coordinate", record.id]
    if session.hosts_file:
        command += ["--hosts", str(Path(session.hosts_file).absolute())]
    for name in only or ():
        command += ["--only", name]
    log_file = open_file(str(folder / f"{record.name}.log"), os.O_WRONLY | os.O_APPEND)
    with os.fdopen(log_file, "ab") as log:
        process = subprocess.Popen(
            command, cwd=session.root, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
        )
    assert process.stdin is not None
    process.stdin.write(json.dumps(dict(attendance.caller)).encode())
    process.stdin.close()


async def coordinate(attendance: Attendance, record: RunRecord, only: Sequence[str] | None) -> None:
    """Bring a recorded run to its end without a terminal."""
    session = attendance.session
    screen = LogScreen()
    async with open_hosts(session, only=only) as hosts:
        with session.notices_to(_in_loop(screen.message)), own_coordinator(session) as me:
            means = make_means(session, hosts.fleet, me, screen=screen, caller=attendance.caller)
            await Coordination(means, record, me).finish()
