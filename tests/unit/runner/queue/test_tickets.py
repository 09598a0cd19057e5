"""What stands in a ticket is taken within its bounds, or the ticket is malformed; nothing else ever happens."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dstack.runner.queue import tickets
from dstack.runner.queue.scheduler import Capacity, Card, ResourceDemand, Ticket, decide
from dstack.wire import Refusal
from tests.support.records.any_value import JSON, TEXT
from tests.support.runners.tickets import locked

ORDER = f"{1:020d}-ab"
HOST = Capacity(4, 8, 1 << 34, (Card(0, "A100", 1 << 35), Card(1, "A100", 1 << 35)))
MINE = Ticket(f"{2:020d}-cd", ResourceDemand(1, 1, 1), 0)
NUMBER = st.integers(-(10**30), 10**30) | st.floats() | JSON
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "title": TEXT | JSON,
        "priority": st.integers(-120, 120) | NUMBER,
        "gpus": st.none() | st.lists(st.integers(-1, 3) | NUMBER, max_size=4) | JSON,
        "demand": st.dictionaries(st.sampled_from(["cpu", "memory", "gpus", "gpu_name", "gpu_memory"]), NUMBER | TEXT)
        | JSON,
    },
)
TICKET = st.builds(
    Ticket,
    order=st.just(ORDER),
    demand=st.builds(
        ResourceDemand,
        cpu=st.integers(*tickets.NUMBER_BOUNDS["cpu"]),
        memory=st.integers(*tickets.NUMBER_BOUNDS["memory"]),
        gpus=st.integers(*tickets.NUMBER_BOUNDS["gpus"]),
        gpu_name=TEXT.filter(str.isprintable),
        gpu_memory=st.integers(*tickets.NUMBER_BOUNDS["gpu_memory"]),
    ),
    priority=st.integers(*tickets.NUMBER_BOUNDS["priority"]),
    gpus=st.none()
    | st.lists(st.integers(*tickets.NUMBER_BOUNDS["index"]), max_size=tickets.MAX_TICKET_GPUS).map(tuple),
    title=st.text(max_size=300).map(tickets.title_of),
    user=st.just("alice"),
)


@given(TICKET)
def test_what_is_written_is_read_back_but_for_a_title_without_room(ticket: Ticket) -> None:
    body = tickets.encode(ticket)
    assert len(body) == tickets.TICKET_BYTES
    found = tickets.decode(ORDER, body, "alice")
    assert found._replace(title="") == ticket._replace(title="")
    assert ticket.title.startswith(found.title)


@settings(max_examples=300)
@given(st.binary(max_size=200) | (JSON | FIELDS).map(lambda value: json.dumps(value).encode()))
@example(b"[" * 4096)
@example(b'{"a":' * 800)
@example(b"9" * 4096)
@example(b'{"title": "t", "priority": 1e999, "gpus": [], "demand": {}}')
@example(b'{"title": "t", "priority": 0, "gpus": [NaN], "demand": {}}')
@example(b'{"title": "\\ud800", "priority": 0, "gpus": [], "demand": {}}')
def test_a_body_is_a_ticket_within_all_bounds_or_malformed(body: bytes) -> None:
    try:
        ticket = tickets.decode(ORDER, body.ljust(tickets.TICKET_BYTES), "bob")
    except tickets.MalformedError as error:
        said = str(error)
        assert said.isprintable()
        assert len(said) < 200
        return
    assert tickets.decode(ORDER, tickets.encode(ticket), "bob") == ticket
    asked = ticket.demand._asdict()
    assert all(least <= asked.get(name, least) <= most for name, (least, most) in tickets.NUMBER_BOUNDS.items())
    decide(HOST, [ticket], MINE)
    decide(HOST, [MINE], ticket)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=60), st.booleans(), st.booleans()), max_size=6))
def test_a_locked_file_counts_once_and_an_unlocked_one_goes(files: list[tuple[bytes, bool, bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        for number, (body, padded, held) in enumerate(files):
            path = Path(folder, f"{number:020d}-x")
            path.write_bytes(body.ljust(tickets.TICKET_BYTES) if padded else body)
            if held:
                locked(path, stack)
        found = tickets.read_folder(folder)
        names = [f"{number:020d}-x" for number, (_, _, held) in enumerate(files) if held]
        assert sorted(each.ticket.order for each in found) == names
        assert all(each.counts and each.fault and each.ticket.gpus == () for each in found)
        assert sorted(os.listdir(folder)) == names


@pytest.mark.parametrize("name", ["²" * 20 + "-x", "٣" * 20 + "-x", "0" * 19 + "-x", "0" * 21 + "-x", "lock", "-x"])
def test_a_name_that_no_ticket_has_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert tickets.read_folder(str(tmp_path)) == []
    assert (tmp_path / name).exists()


@pytest.mark.parametrize("change", [{"cpu": -1}, {"gpus": 10**6}, {"gpu_name": "x" * 300}, {"gpu_name": "a\x1b"}])
def test_no_ticket_is_written_that_others_would_call_malformed(change: dict[str, Any]) -> None:
    with pytest.raises(Refusal, match="demand"):
        tickets.demand_of(change)
