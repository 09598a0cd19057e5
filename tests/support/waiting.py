"""Waiting for a condition with a deadline."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(what: str, check: Callable[[], T], *, seconds: float = 30, told: Callable[[], str] = str) -> T:
    """The first true answer of `check`; after `seconds` AssertionError naming `what`, and what `told` can tell."""
    deadline = time.monotonic() + seconds
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}\n{told()}")
        time.sleep(0.05)


def banner(address: str, port: int) -> bytes:
    """What a server says first; b"" when it does not answer within a second."""
    try:
        with socket.create_connection((address, port), timeout=1) as plug:
            return plug.recv(255)
    except OSError:
        return b""
