"""The session of a command, with notices on standard error."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from dstack.project.locate import find_project
from dstack.session import home
from dstack.session.session import Session
from dstack.ui.terminal import clean


def say(text: str) -> None:
    """Print a line on standard error."""
    print(clean(text), file=sys.stderr, flush=True)


def own_home() -> Path:
    """The user's home, checked; standard error names paths found open to other accounts. Raises as `session.home`
    does."""
    return home.own_home(say)


def open_session(*, hosts_file: str | None = None) -> Session:
    """The session of the current folder; raises UsageError outside a project."""
    checked = own_home()
    root = find_project(Path.cwd(), home=checked)
    return Session(root=root, home=checked, environ=os.environ, hosts_file=hosts_file, notify=say)
