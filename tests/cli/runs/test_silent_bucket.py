"""A bucket that takes connections and never answers: what the person in front of it reads."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dstack.cli.command_session import say
from dstack.session.attendance import in_loop
from dstack.session.session import Session
from tests.support.people.laptop import LIMIT, Laptop

IMPATIENT = """
from dstack.adapters.bucket import stall_notice
stall_notice.FIRST_NOTICE_S, stall_notice.WATCH_INTERVAL_S = 0.2, 0.05
from dstack.cli.main import execute
execute(["ps"])
"""


def test_a_command_says_that_the_store_does_not_answer(project: Callable[..., Laptop]) -> None:
    made = project({".dstack/config.yaml": "bucket: s3://hang\n"})
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        environment = {
            **made.environment,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{deaf.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "k",
            "AWS_SECRET_ACCESS_KEY": "s",
            "AWS_REGION": "x",
        }
        process = subprocess.Popen(
            [sys.executable, "-c", IMPATIENT], cwd=made.root, env=environment, stderr=subprocess.PIPE, text=True
        )
        late = threading.Timer(LIMIT, process.kill)
        late.start()
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == "s3://hang has not answered a read for 0 s; dstack goes on trying\n"
        finally:
            late.cancel()
            process.kill()
            process.communicate()


def session(folder: Path) -> Session:
    (folder / "project/.dstack").mkdir(parents=True)
    (folder / "bucket").mkdir()
    environ = {**os.environ, "DSTACK_BUCKET": str(folder / "bucket")}
    return Session(root=folder / "project", home=folder, environ=environ, hosts_file=None, notify=say)


def test_while_a_screen_is_open_it_gets_the_lines_from_the_event_loop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, shown = session(tmp_path), []

    async def scene() -> None:
        seen = asyncio.Event()

        def show(text: str) -> None:
            shown.append((text, threading.get_ident()))
            seen.set()

        with made.notices_to(in_loop(show)):
            await asyncio.to_thread(made.tell, "in between")
            await asyncio.wait_for(seen.wait(), LIMIT)
        made.tell("afterwards")

    asyncio.run(scene())
    assert shown == [("in between", threading.get_ident())]
    assert capsys.readouterr().err == "afterwards\n"


def test_a_bucket_in_a_folder_is_probed_and_read_as_one(tmp_path: Path) -> None:
    made = session(tmp_path)
    assert made.storage.reads_at_once == 1
    made.storage.probe()
    assert json.loads((tmp_path / "bucket/dstack.json").read_bytes())["writers"] == 4
