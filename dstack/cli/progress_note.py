"""Explains to a person why nothing is shown yet."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dstack.ui.terminal import clean

SIGN_AFTER = 1.0
"""Seconds of silence after which a wait is explained."""


@contextmanager
def telling(text: str | Callable[[], str]) -> Iterator[None]:
    """A sign of life on a terminal's standard error while something takes longer than a moment.

    A function is asked for its text when that moment is over, from another thread.
    """
    if not sys.stderr.isatty():
        yield
        return

    def tell() -> None:
        print(f"{clean(text if isinstance(text, str) else text())} …", file=sys.stderr, flush=True)

    timer = threading.Timer(SIGN_AFTER, tell)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
