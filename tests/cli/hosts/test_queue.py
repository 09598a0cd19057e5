"""`dstack queue` on this machine: what runs and waits, in 80 columns."""

from __future__ import annotations

import socket
from collections.abc import Callable

from tests.support.people.laptop import Laptop

Make = Callable[..., Laptop]


def test_an_idle_host_says_so(project: Make) -> None:
    made = project()
    made.run("init")
    done = made.run("queue")
    assert (done.code, done.out, done.err) == (0, "nothing runs or waits\n", "")


def test_an_unknown_host_is_refused(project: Make) -> None:
    made = project()
    made.run("init")
    done = made.run("queue", "nowhere")
    assert done.code == 2
    assert "nowhere" in done.err


def test_a_terminal_is_told_for_whom_it_waits(project: Make) -> None:
    """A host that takes the connection and says nothing."""
    made = project()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        made.run("hosts", "add", "gone", "--address", "127.0.0.1", "--port", port, "--offline")
        made.run("init")
        done = made.terminal("queue", interrupt_at="waiting for gone")
    assert done.code == 130
    assert "waiting for gone …\n" in done.out
    assert "Traceback" not in done.out
