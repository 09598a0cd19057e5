"""Coordinators in the background of this machine: started by a session, and run by a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dstack.core.format.records import RunRecord
from dstack.private_folder import make_folder, open_file
from dstack.session.session import Session
from dstack.session.submission import caller_values


def start_background_coordinator(
    session: Session, record: RunRecord, *, caller: Mapping[str, str], only: Sequence[str] = ()
) -> None:
    """Start a coordinator to outlive this process and the terminal; the `caller` values go to the stdin of the
    coordinator.

    `only` names the hosts to drive; without names the coordinator drives all hosts.
    """
    folder = session.home / ".dstack" / "coordinators"
    make_folder(str(folder))
    # -P: Python starts in the folder of the project, whose modules must not stand in for those of Python.
    command = [sys.executable, "-P", "-m", "dstack", "_coordinate", record.id]
    if session.hosts_file:
        command += ["--hosts", str(Path(session.hosts_file).absolute())]
    for name in only:
        command += ["--only", name]
    log_file = open_file(str(folder / f"{record.name}.log"), os.O_WRONLY | os.O_APPEND)
    with os.fdopen(log_file, "ab") as log:
        # In a session of its own, out of reach for Ctrl-C and for the end of the terminal.
        process = subprocess.Popen(
            command, cwd=session.root, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
        )
    # By stdin, because other accounts see the arguments of a process.
    assert process.stdin is not None
    process.stdin.write(json.dumps(dict(caller)).encode())
    process.stdin.close()


def finish_in_background(session: Session, record: RunRecord) -> None:
    """Bring the run to the end in the background, in case no coordinator is left for the run.

    Beside a living coordinator this does no harm. Jobs whose secrets this user lacks wait; the user is told so.
    """
    caller = caller_values(session, record.plan.jobs, required=False)
    start_background_coordinator(session, record, caller=caller)
