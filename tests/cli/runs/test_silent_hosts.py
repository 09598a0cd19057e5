"""A job that no host can run which answers, beside a host at a port where nothing listens: said, and given up."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dstack.app.coordination.handover import HandoverResult, LeftHost, ReadyHosts
from dstack.cli.command_session import say
from dstack.model import Gpu, HostName, Resources
from dstack.session.handover import RunHandover
from dstack.session.hosts import open_hosts
from dstack.session.session import Session
from tests.support.people.laptop import LIMIT, Laptop
from tests.support.records.specs import spec
from tests.support.records.story import Story
from tests.support.waiting import until

BIG = """\
workflows:
  - name: big
    resources: {gpu: 64}
    commands: [echo big]
  - name: small
    commands: [echo small]
"""
RECORD = """
from dstack.app.coordination.run import submit
from dstack.cli.runs.run_arguments import read_arguments
from dstack.session.submission import plan_run, rename
from dstack.cli.command_session import open_session
session = open_session()
session.storage.probe()
_, submission = plan_run(session, read_arguments(["big"]).request())
print(submit(session.bucket, session.keys, submission, rename=rename).name)
"""
"""Records a run and looks after it no further, as a laptop does whose lid is shut at that moment."""
SHORT = {"DSTACK_SILENCE": "4", "COLUMNS": "300"}
"""Seconds of silence after which a host is given up, as short as a loaded machine allows."""


@pytest.fixture
def port() -> Iterator[int]:
    """A port that answers nobody, kept from others for as long as the test needs it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def lab(project: Callable[..., Laptop], port: int) -> Laptop:
    """A project on `here`, which has no 64 GPUs, and `gone`, which does not answer."""
    made = project({
        ".dstack/workflows.yaml": BIG,
        ".dstack/hosts.yaml": f"hosts:\n  here: {{local: true}}\n  gone: {{address: 127.0.0.1, port: {port}}}\n",
    })  # fmt: skip
    made.git()
    return made


def runs(project: Laptop) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(project.run("ps", "-a", "--json").out)
    return found


@pytest.mark.parametrize("way", [(), ("-d",)], ids=["attached", "detached"])
def test_the_run_is_refused_once_the_host_was_silent_for_long(lab: Laptop, way: tuple[str, ...]) -> None:
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


def test_a_dry_run_does_not_promise_that_the_job_runs(lab: Laptop) -> None:
    done = lab.run("run", "big", "--dry-run", "--hosts", ".dstack/hosts.yaml", env={"COLUMNS": "300"})
    assert done.code == 0, done.err
    row = done.out.splitlines()[1]
    assert row.split()[:3] == ["big", "waits", "-"]
    assert "waits for gone, which cannot be reached; no other host can run it: here has " in row


def test_a_job_that_another_host_can_run_waits_for_nobody(lab: Laptop) -> None:
    done = lab.run("run", "small", "--hosts", ".dstack/hosts.yaml", env={"COLUMNS": "300"})
    assert done.code == 0, done.err
    assert "waits for gone" not in done.out + done.err


def test_a_recorded_run_is_waited_with_and_says_for_which_host(lab: Laptop) -> None:
    """Whoever comes back to a run may know other hosts than its user: nobody ends a run on that."""
    (lab.home / ".dstack").mkdir(mode=0o700)
    (lab.root / ".dstack/hosts.yaml").rename(lab.home / ".dstack/hosts.yaml")
    (lab.home / ".dstack/hosts.yaml").chmod(0o600)
    command = [sys.executable, "-c", RECORD]
    made = subprocess.run(
        command, cwd=lab.root, env=lab.environment, capture_output=True, text=True, timeout=LIMIT, check=True
    )
    name, note = made.stdout.strip(), "waits for gone, which cannot be reached; no other host can run it: here has "
    attached = lab.terminal("attach", name, env={**SHORT, "COLUMNS": "80"}, interrupt_at="waits for gone")
    assert attached.code == 130, attached.out
    try:
        assert f"{name} goes on in the background of this machine" in attached.out
        until("the host is named", lambda: note in lab.run("show", name, env=SHORT).out, seconds=LIMIT)
        assert f"  queued: {note}" in lab.run("why", name, env=SHORT).out
    finally:
        assert lab.run("stop", name, env=SHORT).code == 0


def test_a_run_that_is_left_to_hosts_keeps_the_silent_one_that_alone_can_run_a_job(tmp_path: Path, port: int) -> None:
    for folder in ("project/.dstack", "bucket"):
        (tmp_path / folder).mkdir(parents=True)
    inventory = tmp_path / "hosts.yaml"
    inventory.write_text(f"hosts:\n  here: {{local: true}}\n  gone: {{address: 127.0.0.1, port: {port}}}\n")
    environ = {**os.environ, "DSTACK_BUCKET": str(tmp_path / "bucket")}
    session = Session(root=tmp_path / "project", home=tmp_path, environ=environ, hosts_file=str(inventory), notify=say)
    story = Story(session.bucket, session.keys)
    big = spec("big", resources=Resources(gpu=Gpu(count=64)))
    record = story.run("a-1", spec("small"), big)

    async def left() -> HandoverResult:
        async with open_hosts(session) as hosts:
            await hosts.fleet.connect()
            handing = RunHandover(session, hosts, {})
            try:
                return await handing.hand(ReadyHosts(able=(), images={}, left=(LeftHost(HostName("here")),)), record)
            finally:
                await handing.close()

    why = "gone: cannot be reached, and no other host can run big"
    assert [(each.name, each.why) for each in asyncio.run(left()).left] == [("here", ""), ("gone", why)]
    story.outcome(record, big)
    assert [each.name for each in asyncio.run(left()).left] == ["here"], "a job that is over needs no host"


def test_a_job_that_another_run_has_at_work_needs_no_host_here(lab: Laptop, tmp_path: Path) -> None:
    """What a job asks of hosts is no part of the job: whoever asks for more joins the same one."""
    gate = tmp_path / "gate"
    text = "workflows:\n  - name: w\n    depends-on: {{repo: {{include: []}}}}\n    resources: {{cpu: 1{}}}\n"
    text += f"    commands: ['until [ -e {gate} ]; do sleep 0.1; done']\n"
    lab.write({".dstack/workflows.yaml": text.format("")})
    hosts = ("--hosts", ".dstack/hosts.yaml")
    assert lab.run("run", "w", "-d", *hosts).code == 0
    try:
        until("it runs", lambda: "running" in lab.run("show", "-").out.split("NOTE")[1], seconds=LIMIT)
        lab.write({".dstack/workflows.yaml": text.format(", gpu: 64")})
        planned = lab.run("run", "w", "--dry-run", *hosts)
        assert (planned.code, planned.out.splitlines()[1].split()[1]) == (0, "joins"), planned
        joined = lab.terminal("run", "w", *hosts, env={"COLUMNS": "200"}, interrupt_at="joins ")
        assert joined.code == 130, joined.out
        assert "waits for gone" not in joined.out
    finally:
        gate.touch()
    until("both are over", lambda: all(run["status"] == "succeeded" for run in runs(lab)), seconds=LIMIT)
    assert len(runs(lab)) == 2
