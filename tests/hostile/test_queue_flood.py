"""Hundreds of files that another account planted and that nobody else can open: they stop nobody's queue."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.runner.queue.tickets import MAX_STRAYS
from tests.support.faults import villain
from tests.support.faults.villain import ALICE, BOB, PYTHON
from tests.support.runners.client import Client, until

FILES = 400
CPU = {"cpu": 1}


@pytest.fixture
def queue() -> Iterator[Path]:
    villain.need_accounts()
    with villain.common_folder("dstack-flood-") as folder:
        yield villain.shared_queue(folder)


@pytest.fixture
def alice(queue: Path) -> Iterator[Client]:
    home = queue.parent / "alice"
    home.mkdir()
    os.chown(home, ALICE, ALICE)
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    client = Client(home / ".dstack", queue, python=PYTHON, environment=environment, uid=ALICE).start()
    try:
        yield client
    finally:
        client.close()
        client.discard()


def test_locked_files_that_nobody_can_open_take_slots_for_the_first_of_an_account_only(
    alice: Client, queue: Path
) -> None:
    hidden = {f"{number:020d}-{number:016x}": villain.body(b"x" * 4096, mode=0) for number in range(FILES)}
    with villain.planted(queue, hidden):
        assert alice.call("hold", nonce="a" * 16, slots=MAX_STRAYS + 1, demand=CPU) == {"gpus": []}
        waiting = alice.ask("hold", nonce="b" * 16, slots=MAX_STRAYS + 1)
        until(lambda: len(list(queue.iterdir())) == FILES + 3, "the second waits")
        answer = alice.call("queue", slots=MAX_STRAYS + 1)
        assert waiting.frames.empty()
        alice.call("drop", nonce="a" * 16)
        assert waiting.result() == {"gpus": []}
        alice.call("drop", nonce="b" * 16)
        until(lambda: len(list(queue.iterdir())) == FILES + 1, "both have left")
    faults = [ticket for ticket in answer["tickets"] if "fault" in ticket]
    assert {(ticket["user"], ticket["counts"]) for ticket in faults} == {(str(BOB), True)}
    assert len(faults) == MAX_STRAYS
    assert answer["more"] == FILES - MAX_STRAYS
