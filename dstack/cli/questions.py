"""Questions to a person at a terminal."""

from __future__ import annotations

import sys

from dstack.errors import UsageError
from dstack.ui.terminal import clean


def ask(question: str, hint: str) -> None:
    """Return after a yes; raises UsageError after every other answer, and without a terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(clean(f"nobody is here to ask: {question}"), hint=f"{hint}, then add --yes")
    # Not on standard output, which may be a pipe.
    sys.stderr.write(f"{clean(question)} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was changed")
