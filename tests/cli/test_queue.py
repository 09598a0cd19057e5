"""`dstack queue` on this machine: what runs and waits, in 80 columns."""

from __future__ import annotations

from collections.abc import Callable

from tests.cli.conftest import Project

Make = Callable[..., Project]


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
