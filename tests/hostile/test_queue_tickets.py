"""Tickets that another account wrote: none stops the queue, and each is listed with its account and file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.faults import villain
from tests.support.faults.villain import BOB, body, kind
from tests.support.people.laptop import Laptop
from tests.support.runners.client import Client, until

DEMAND = {"cpu": 0, "memory": 0, "gpus": 0, "gpu_name": "", "gpu_memory": 0}
GOOD = {"title": "theirs/train", "priority": 0, "gpus": [], "demand": DEMAND}


def ticket(**fields: object) -> dict[str, object]:
    return body(json.dumps({**GOOD, **fields}).encode().ljust(4096))


def text(ticket: str) -> dict[str, object]:
    return body(ticket.encode().ljust(4096))


REST = f'"demand": {json.dumps(DEMAND)}'
MALFORMED: Mapping[str, Mapping[str, object]] = {
    "priority-1e999": text(f'{{"title": "t", "priority": 1e999, "gpus": [], {REST}}}'),
    "priority-nan": text(f'{{"title": "t", "priority": NaN, "gpus": [], {REST}}}'),
    "gpu-1e999": text(f'{{"title": "t", "priority": 0, "gpus": [1e999], {REST}}}'),
    "brackets": text("[" * 4096),
    "title-of-brackets": text('{"title": ' + "[" * 1500),
    "memory-10-400": text('{"title": "t", "priority": 0, "gpus": [], "demand": {"memory": 1' + "0" * 400 + "}}"),
    "title-surrogate": text(f'{{"title": "\\ud800", "priority": 0, "gpus": [], {REST}}}'),
    "types": ticket(gpus="0", title=7),
    "huge": body(b"{}", size=1 << 40),
    "empty": body(b""),
    "hidden": body(b"x" * 4096, mode=0),
    "fifo": kind(villain.FIFO),
    "folder": kind(villain.FOLDER),
}
"""Each is locked by its owner's process, so each takes a slot."""
STRAY = {"link": kind(villain.LINK)}
"""A link cannot be locked, so it takes none."""


def named(tickets: Mapping[str, Mapping[str, object]]) -> dict[str, Mapping[str, object]]:
    return {f"{number:020d}-{name}": value for number, (name, value) in enumerate(tickets.items(), 1)}


@pytest.fixture(scope="module")
def common() -> Iterator[Path]:
    villain.need_accounts()
    with villain.common_folder("dstack-tickets-") as folder:
        yield folder


@pytest.fixture
def queue(common: Path, request: pytest.FixtureRequest) -> Path:
    place = common / str(abs(hash(request.node.name)))
    place.mkdir()
    place.chmod(0o755)
    return villain.shared_queue(place)


@pytest.mark.parametrize("name", [*MALFORMED, *STRAY])
def test_one_malformed_ticket_takes_one_slot_at_most_and_is_listed(queue: Path, name: str) -> None:
    file = f"{1:020d}-{name}"
    with villain.planted(queue, {file: {**MALFORMED, **STRAY}[name]}):
        client = Client(queue.parent / "dstack", queue).start()
        try:
            room = 2 if name in MALFORMED else 1
            assert client.call("hold", nonce="a" * 16, slots=room) == {"gpus": []}
            client.ask("hold", nonce="b" * 16, slots=room)
            until(lambda: len(client.call("queue", slots=room)["tickets"]) == 3, "the second waits")
            theirs, running, waiting = client.call("queue", slots=room)["tickets"]
        finally:
            client.close()
            client.discard()
    assert (theirs["user"], theirs["file"]) == (str(BOB), str(queue / file))
    assert theirs["fault"]
    assert theirs["counts"] is (name in MALFORMED)
    assert (running["gpus"], waiting["why"]) == ([], "no slot is free")


def test_a_run_goes_on_beside_all_of_them_and_the_queue_names_each(queue: Path) -> None:
    laptop = Laptop(queue.parent / "alice")
    laptop.environment |= {"DSTACK_SLOTS_DIR": str(queue), "COLUMNS": "400"}
    laptop.write(
        {
            ".dstack/workflows.yaml": "workflows:\n  - name: train\n    commands: ['true']\n",
            ".dstack/hosts.yaml": f"hosts:\n  here: {{local: true, slots: {len(MALFORMED) + 1}}}\n",
        }
    )
    laptop.commit()
    files = named({**MALFORMED, **STRAY})
    with villain.planted(queue, files):
        laptop.dstack("run", "train")
        shown = laptop.dstack("queue").stdout
    for file in files:
        assert str(queue / file) in shown
    assert shown.count("malformed") == len(files)
    assert shown.count(f"{BOB} has a file that is no ticket and takes a slot") == len(MALFORMED)
