"""Follows a run on the screen of a command, until the run has ended or the user leaves the run to the hosts."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from dstack.app.coordination.handover import HandoverResult
from dstack.app.hosts.fleet import Fleet
from dstack.app.hosts.silent_host_wait import Prospects
from dstack.app.queries.runs import run_view
from dstack.cli.attend.handover_lines import credential_lines, left_out_lines, where_it_goes_on
from dstack.cli.command_session import say
from dstack.cli.progress_note import explain_wait
from dstack.core.format.records import RunRecord
from dstack.errors import BucketError, DstackError
from dstack.model import JobSpec, RunStatus
from dstack.session.attendance import Attendance
from dstack.session.hosts import open_hosts
from dstack.session.session import Session
from dstack.ui.jsonout import run_json
from dstack.ui.screen import open_screen

DAMAGED_EXIT = BucketError.exit_code
RUN_EXIT_CODES = {RunStatus.SUCCEEDED: 0, RunStatus.FAILED: 1, RunStatus.STOPPED: 1, RunStatus.LOST: 1}
DETACHED_EXIT = 130
"""The exit code of a command that left the run before the end."""
DETACH_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
"""Signals to detach: Ctrl-C, a closed terminal, and a polite end of this process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowOptions:
    """How a command follows a run."""

    caller: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Values of jobs from the memory of this process alone."""
    jobs: Sequence[JobSpec] = ()
    """The jobs for hosts of this command to run, without the jobs of other runs to join."""
    needs_host: bool = False
    as_json: bool = False
    renews: bool = False
    """Whether the hosts first get the run once more, because their lent credentials are over."""
    stands_by: bool = False
    """Whether hosts get the run in stand-by."""


async def follow_run(session: Session, obtain_record: Callable[[], RunRecord], options: FollowOptions) -> int:
    """Reach the hosts, then record the run and bring the run to the end on this screen -> exit code.

    `obtain_record` records the run or returns the record. Hosts come first, so that nothing is recorded without a
    reachable host.
    """
    async with open_hosts(session) as hosts:
        if options.needs_host:
            await _reach(hosts.fleet, options.jobs)
        # In a thread: a bucket that hangs must not keep the connections from answering.
        record = await asyncio.to_thread(obtain_record)
        attendance = Attendance(session=session, hosts=hosts, caller=options.caller)
        if options.renews:
            await _renew(attendance, record)
        return await _follow(attendance, record, options)


async def leave_run(
    session: Session, planned: RunRecord, obtain_record: Callable[[], RunRecord], options: FollowOptions
) -> tuple[RunRecord, HandoverResult]:
    """Reach the hosts, record the run, and leave the run to coordinators on the hosts, and on this machine for the
    rest."""
    async with open_hosts(session) as hosts:
        await _reach(hosts.fleet, options.jobs)
        attendance = Attendance(session=session, hosts=hosts, caller=options.caller)
        return await _leave(attendance, planned, obtain_record)


async def _reach(fleet: Fleet, jobs: Sequence[JobSpec]) -> None:
    """Try all hosts; raises NoHostError where no host can be used, or no host can run one of the jobs.

    Standard error names the silent hosts for which a job waits.
    """
    with explain_wait(f"connecting to {fleet.names_text()}"):
        await fleet.connect()
        await Prospects(fleet).require_all(jobs, say)


async def _hand_over(
    attendance: Attendance, planned: RunRecord, obtain_record: Callable[[], RunRecord]
) -> tuple[RunRecord, HandoverResult]:
    with explain_wait("handing the run to its hosts"):
        return await attendance.hand_over(planned, obtain_record)


async def _leave(
    attendance: Attendance, planned: RunRecord, obtain_record: Callable[[], RunRecord]
) -> tuple[RunRecord, HandoverResult]:
    record, handed = await _hand_over(attendance, planned, obtain_record)
    attendance.continue_in_background(record, handed)
    return record, handed


async def _renew(attendance: Attendance, record: RunRecord) -> None:
    """Hand the run to the hosts again, with fresh credentials, and print the result."""
    try:
        _, handed = await _hand_over(attendance, record, lambda: record)
        why = "; ".join(each.why for each in handed.left if each.why) or "none of them is reached"
    except DstackError as error:
        # The run is followed here all the same: fresh credentials are for the time without this machine.
        handed, why = HandoverResult(taken=(), left=()), str(error)
    lines = credential_lines(handed, record.name) if handed.taken else [f"the hosts got no new credentials: {why}"]
    for line in lines:
        say(line)


async def _follow(attendance: Attendance, record: RunRecord, options: FollowOptions) -> int:
    with open_screen(record, quiet=options.as_json) as screen:
        final = await attendance.follow(
            record, screen=screen, interruption=_detach_signals(), stands_by=options.stands_by
        )
    if final is None:
        await _detach(attendance, record)
        return DETACHED_EXIT
    if options.as_json:
        print_json(attendance.session, record)
    return DAMAGED_EXIT if any(outcome.damaged for outcome in final.jobs) else RUN_EXIT_CODES[final.status]


@contextmanager
def _detach_signals() -> Iterator[asyncio.Event]:
    """An event, set by DETACH_SIGNALS inside the block."""
    loop = asyncio.get_running_loop()
    interrupted = asyncio.Event()
    for number in DETACH_SIGNALS:
        loop.add_signal_handler(number, interrupted.set)
    try:
        yield interrupted
    finally:
        for number in DETACH_SIGNALS:
            loop.remove_signal_handler(number)


async def _detach(attendance: Attendance, record: RunRecord) -> None:
    """Leave the run, also where the terminal is gone."""
    # A hand-over that ends half-way would leave the run to nobody.
    for number in DETACH_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    _, handed = await _leave(attendance, record, lambda: record)
    with suppress(OSError):
        print(f"detached: {record.name} {where_it_goes_on(handed)}", file=sys.stderr)
        for line in [*left_out_lines(handed), *credential_lines(handed, record.name)]:
            print(f"  {line}", file=sys.stderr)
        print(f"  dstack attach {record.name}    comes back to it", file=sys.stderr)
        print(f"  dstack stop {record.name}      ends it", file=sys.stderr)


def print_json(session: Session, record: RunRecord) -> None:
    """Print the run as a JSON object, alone on standard output."""
    print(run_json(run_view(session.bucket, session.keys, record)))
