"""Looks after a recorded run in this process, or leaves it to one in the background."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dstack.app.fleet import Fleet
from dstack.app.overview import run_view
from dstack.app.running import Coordination
from dstack.cli import wiring
from dstack.core.records import Final, RunRecord
from dstack.model import RunStatus
from dstack.ports import Screen
from dstack.ui.jsonout import run_json
from dstack.ui.screen import open_screen

EXIT = {RunStatus.SUCCEEDED: 0, RunStatus.FAILED: 1, RunStatus.STOPPED: 1, RunStatus.LOST: 1}
DETACHED = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Attendance:
    """How a run is looked after: values of the caller's environment, the inventory file, and what is printed."""

    session: wiring.Session
    caller: Mapping[str, str] = field(default_factory=dict)
    as_json: bool = False


async def attend(attendance: Attendance, recorded: Callable[[], RunRecord], *, needs_host: bool) -> int:
    """Reach the hosts, then record the run and bring it to its end on this screen -> exit code.

    `recorded` records the run, or gives the one that was; it is called once a host is reached, so that nothing is
    recorded when none can be.
    """
    async with wiring.fleet(attendance.session) as fleet:
        if needs_host:
            await fleet.connect()
        record = await asyncio.to_thread(recorded)
        return await _follow(attendance, record, fleet)


async def _follow(attendance: Attendance, record: RunRecord, fleet: Fleet) -> int:
    with open_screen(record, quiet=attendance.as_json) as screen:
        final = await _until_interrupted(attendance, record, fleet=fleet, screen=screen)
    if final is None:
        spawn_coordinator(attendance, record)
        print(f"detached: {record.name} goes on in the background of this machine", file=sys.stderr)
        print(f"  dstack attach {record.name}    comes back to it", file=sys.stderr)
        print(f"  dstack stop {record.name}      ends it", file=sys.stderr)
        return DETACHED
    if attendance.as_json:
        print_json(attendance.session, record)
    return EXIT[final.status]


async def _until_interrupted(
    attendance: Attendance, record: RunRecord, *, fleet: Fleet, screen: Screen
) -> Final | None:
    """The summary of the run, None when Ctrl-C came first."""
    session = attendance.session
    with wiring.coordinator(session) as me:
        means = wiring.make_means(session, fleet, screen=screen, caller=attendance.caller)
        work = asyncio.create_task(Coordination(means, record, me).finish())
        interrupted = asyncio.Event()
        waiting = asyncio.create_task(interrupted.wait())
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, interrupted.set)
        try:
            await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work.done() else None
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            for task in (work, waiting):
                task.cancel()
            await asyncio.gather(work, waiting, return_exceptions=True)


def print_json(session: wiring.Session, record: RunRecord) -> None:
    """The run as one JSON object, alone on standard output."""
    print(run_json(run_view(session.bucket, session.keys, record)))


def spawn_coordinator(attendance: Attendance, record: RunRecord) -> None:
    """Start a coordinator that outlives this process and its terminal; it takes the caller's values from its stdin."""
    session = attendance.session
    folder = session.home / ".dstack" / "coordinators"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # -P: it begins in the project's folder, whose modules must not stand in for Python's.
    command = [sys.executable, "-P", "-m", "dstack", "_coordinate", record.id]
    if session.hosts_file:
        command += ["--hosts", str(Path(session.hosts_file).absolute())]
    with (folder / f"{record.name}.log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=session.root, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
        )
    assert process.stdin is not None
    process.stdin.write(json.dumps(dict(attendance.caller)).encode())
    process.stdin.close()


async def coordinate(attendance: Attendance, record: RunRecord) -> None:
    """Bring a recorded run to its end without a terminal."""
    session = attendance.session
    async with wiring.fleet(session) as fleet:
        with wiring.coordinator(session) as me:
            means = wiring.make_means(session, fleet, screen=wiring.LogScreen(), caller=attendance.caller)
            await Coordination(means, record, me).finish()
