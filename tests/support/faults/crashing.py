"""The real command line, ended by SIGKILL at one counted step. For tests only:
`python -m tests.support.faults.crashing ARGS`.

A step is everything by which a coordinator touches the world: an effect that the driver performs, a request to a
runner, a write to the bucket. DSTACK_CRASH_AT=<n>:before|after says where to die: at step n or, where n is no number,
at the first step whose line holds that text. DSTACK_CRASH_TRACE names a file that gets one line for each step, so that
its last line says where the process died and a whole run says how many there are.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from dstack.adapters.bucket.folder import FolderBucket
from dstack.adapters.runner.client import RunnerClient
from dstack.app.coordination.effect_driver import Driver
from dstack.app.effects.steps import Effect
from dstack.cli.main import main

QUIET = {"Pause", "Show", "NewNonce"}
"""Effects that touch nothing outside of the process."""
REQUESTS = (
    *("connect", "facts", "push_code", "missing_blobs", "push_blobs", "hold", "drop", "prepare"),
    *("go", "verdict", "wait", "status", "stop", "manifest", "release"),
)
WRITES = ("create_from", "put")
"""`create` goes through `create_from`."""


class Steps:
    """Counts, writes the trace, and dies where it was told to."""

    def __init__(self) -> None:
        at, _, side = os.environ.get("DSTACK_CRASH_AT", "0:before").partition(":")
        self._at = int(at) if at.isdigit() else 0
        self._text = "" if at.isdigit() else at
        self._before = side != "after"
        self._trace = os.open(os.environ["DSTACK_CRASH_TRACE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._count = 0
        self._lock = threading.Lock()

    def begin(self, label: str) -> int:
        with self._lock:
            self._count += 1
            number = self._count
            if self._text and self._text in label:
                self._at, self._text = number, ""
            os.write(self._trace, f"{number} {label}\n".encode())
        if self._before and number == self._at:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    def end(self, number: int) -> None:
        if not self._before and number == self._at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, label: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            number = self.begin(f"{label} {arguments[1] if label.startswith('bucket') else ''}")
            answer = call(*arguments, **named)
            self.end(number)
            return answer

        return wrapped

    def around_async(self, label: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(call)
        async def wrapped(*arguments: Any, **named: Any) -> Any:
            number = self.begin(label)
            answer = await call(*arguments, **named)
            self.end(number)
            return answer

        return wrapped

    def around_effect(self, perform: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(perform)
        async def wrapped(effect: Any, performer: Any) -> Any:
            if not isinstance(performer, Driver):
                return await perform(effect, performer)
            number = self.begin(f"effect {type(effect).__name__} {getattr(effect, 'key', '')}")
            answer = await perform(effect, performer)
            self.end(number)
            return answer

        return wrapped


def install(steps: Steps) -> None:
    """Put the counter around the three doors to the world."""
    for effect in Effect.__subclasses__():
        if effect.__name__ not in QUIET:
            effect.perform = steps.around_effect(effect.perform)  # type: ignore[method-assign]
    for name in REQUESTS:
        setattr(RunnerClient, name, steps.around_async(f"runner {name}", getattr(RunnerClient, name)))
    for name in WRITES:
        setattr(FolderBucket, name, steps.around(f"bucket {name}", getattr(FolderBucket, name)))


if __name__ == "__main__":
    # A coordinator that this process leaves behind must not inherit the wish to die.
    made = Steps()
    for variable in ("DSTACK_CRASH_AT", "DSTACK_CRASH_TRACE"):
        os.environ.pop(variable, None)
    install(made)
    sys.argv = ["dstack", *sys.argv[1:]]
    main()
