"""`dstack _coordinate`: the coordinator in the background, started by `dstack run -d` and other commands."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Annotated

import typer

from dstack.cli.arguments import REQUIRED_RUN_ARGUMENT
from dstack.cli.command_session import open_session
from dstack.session.attendance import coordinate


def coordinate_(
    run: Annotated[str, REQUIRED_RUN_ARGUMENT],
    hosts: Annotated[str | None, typer.Option("--hosts", metavar="FILE")] = None,
    only: Annotated[list[str] | None, typer.Option("--only", metavar="HOST")] = None,
) -> None:
    """Bring a recorded run to its end without a terminal; values of the caller come as JSON on standard input."""
    # The terminal of the starting command may close at any time.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    caller = json.loads(sys.stdin.buffer.read() or b"{}")
    session = open_session(hosts_file=hosts)
    asyncio.run(coordinate(session, session.require_run(run), caller=caller, only=only or ()))
