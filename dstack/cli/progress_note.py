"""Explains to a person why nothing is shown yet."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dstack.ui.terminal import clean

EXPLAIN_AFTER_S = 1.0
"""Seconds of silence before a wait is explained."""


@contextmanager
def explain_wait(text: str | Callable[[], str]) -> Iterator[None]:
    """A sign of life on a terminal's standard error while the block takes longer than EXPLAIN_AFTER_S.

    A function for the text is called only then, from another thread.
    """
    if not sys.stderr.isatty():
        yield
        return

    def tell() -> None:
        print(f"{clean(text if isinstance(text, str) else text())} …", file=sys.stderr, flush=True)

    # A thread, because the block may be a blocking call.
    timer = threading.Timer(EXPLAIN_AFTER_S, tell)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
