"""`dstack logs`: the output of jobs, out of the bucket."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Annotated, NoReturn

import typer

from dstack.app.queries.log_reader import LogLoss, Piece, follow_logs, read_logs
from dstack.cli.arguments import RUN_ARGUMENT, WORKFLOW_ARGUMENT
from dstack.cli.command_session import open_session
from dstack.errors import LogLostError, UsageError
from dstack.ui.logstream import LogStreams


def logs(
    run: Annotated[str | None, RUN_ARGUMENT] = None,
    workflow: Annotated[str | None, WORKFLOW_ARGUMENT] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the run has ended.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Every byte as it was written; not to a terminal.")] = False,
    attempt: Annotated[
        int | None, typer.Option("--attempt", metavar="N", min=1, help="Attempt N instead of the last.")
    ] = None,
) -> None:
    """Print the logs of a run, or of one workflow of it, while it runs or afterwards.

    Several jobs are told apart by a prefix. What would steer the terminal is left out, but for colours.

    RUN may be the beginning of a name; without it, or as `-`, it is your own last run on this machine.
    """
    if raw and sys.stdout.isatty():
        raise UsageError(
            "--raw is not for terminals: a log can make them do anything",
            hint=f"dstack logs {run or '-'} --raw > FILE, or without --raw",
        )
    if attempt is not None and (follow or workflow is None):
        raise UsageError("--attempt goes with one workflow and without -f", hint="dstack logs RUN WORKFLOW --attempt N")
    session = open_session()
    record = session.require_run(run)
    bucket, many = session.bucket, session.storage.reads_at_once
    losses: list[LogLoss] = []
    keys = session.keys
    if follow:
        pieces = follow_logs(bucket, keys, record, workflow=workflow, pause=time.sleep, at_once=many, losses=losses)
    else:
        pieces = read_logs(bucket, keys, record, workflow=workflow, attempt=attempt, at_once=many, losses=losses)
    prefixed = workflow is None and len(record.plan.jobs) > 1
    _write(pieces, prefixed=prefixed, raw=raw)
    if losses:
        _tell(losses)


def _tell(losses: Sequence[LogLoss]) -> NoReturn:
    """Raise LogLostError about missing parts of logs, after everything present was printed."""
    text = "; ".join(f"{loss.workflow}: {loss.what}" for loss in losses)
    hint = "make room on the host; `dstack run --rerun` runs the job again, and its log is whole then"
    raise LogLostError(", ".join(sorted({loss.host for loss in losses})), text, hint=hint)


def _write(pieces: Iterator[Piece], *, prefixed: bool, raw: bool) -> None:
    """Write every piece at once. After every end, also by a signal, the terminal is left without colours."""
    out = sys.stdout.buffer
    streams = LogStreams(prefixed=prefixed)
    old_handler = signal.signal(signal.SIGTERM, _end)
    try:
        try:
            for name, data in pieces:
                if raw:
                    out.write(data)
                else:
                    out.write(streams.feed(name, data) if data else streams.finish(name))
                out.flush()
        finally:
            out.write(streams.finish_all())
            out.flush()
    except BrokenPipeError:
        streams.leave_unread()
        raise
    finally:
        signal.signal(signal.SIGTERM, old_handler)


def _end(number: int, _: FrameType | None) -> NoReturn:
    """End with the exit code of shells for a signal, by way of the code that gives the terminal back."""
    raise SystemExit(128 + number)
