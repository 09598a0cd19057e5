"""A job that no host can run which answers, beside a host at a port where nothing listens: said, and given up."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.cli.conftest import Project

BIG = """\
workflows:
  - name: big
    resources: {gpu: 64}
    commands: [echo big]
  - name: small
    commands: [echo small]
"""
SHORT = {"DSTACK_SILENCE": "4", "COLUMNS": "300"}
"""Seconds of silence after which a host is given up, as short as a loaded machine allows."""


@pytest.fixture
def port() -> Iterator[int]:
    """A port that answers nobody, kept from others for as long as the test needs it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def lab(project: Callable[..., Project], port: int) -> Project:
    """A project on `here`, which has no 64 GPUs, and `gone`, which does not answer."""
    made = project({
        ".dstack/workflows.yaml": BIG,
        ".dstack/hosts.yaml": f"hosts:\n  here: {{local: true}}\n  gone: {{address: 127.0.0.1, port: {port}}}\n",
    })  # fmt: skip
    made.git()
    return made


def runs(project: Project) -> list[dict]:
    return json.loads(project.run("ps", "-a", "--json").out)


@pytest.mark.parametrize("way", [(), ("-d",)], ids=["attached", "detached"])
def test_the_run_is_refused_once_the_host_was_silent_for_long(lab: Project, way: tuple[str, ...]) -> None:
    done = lab.run("run", "big", "--hosts", ".dstack/hosts.yaml", *way, env=SHORT)
    assert (done.code, done.out) == (3, ""), done.err
    notice, error, hint = done.err.splitlines()
    assert notice.startswith("big waits for gone, which cannot be reached; no other host can run it: here has ")
    assert notice.endswith("; given up after 4 s")
    assert error.startswith("error: no host can run big: here has ")
    assert "; gone: nothing listens at 127.0.0.1 port " in error
    assert error.endswith(", tried for 4 s")
    assert "`dstack hosts check`" in hint
    assert runs(lab) == [], "a run that is refused leaves nothing behind"


def test_a_job_that_another_host_can_run_waits_for_nobody(lab: Project) -> None:
    done = lab.run("run", "small", "--hosts", ".dstack/hosts.yaml", env={"COLUMNS": "300"})
    assert done.code == 0, done.err
    assert "waits for gone" not in done.out + done.err
