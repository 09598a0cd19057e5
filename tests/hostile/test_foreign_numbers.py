"""Every field of every answer of a host, and of every record of a bucket, filled with what no field may hold."""

from __future__ import annotations

import copy
import inspect
import io
import json
import math
import os
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dstack.adapters.runner import answers
from dstack.adapters.runner.channel import Channel
from dstack.cli.hosts import host_report, queue
from dstack.core.format import records
from dstack.core.format.records import kind_of, unpack
from dstack.errors import BucketError, HostError
from dstack.model import Host, HostFacts, HostName, HostQueue
from dstack.session.host_answers import HostAnswer
from dstack.session.host_inspection import HostCondition
from dstack.ui.tables import Column, size_text, table
from dstack.ui.times import ago_text, duration_text
from dstack.wire.field_kinds import LATEST
from dstack.wire.host_messages import HelloRequest, OtherVersionError, QueueRequest, SpoolRequest
from dstack.wire.job_messages import GoRequest, StatusRequest
from dstack.wire.message_form import RequestMessage
from tests.support.records.any_value import any_value
from tests.support.runners.scripted import HELLO

ROUNDS = int(os.environ.get("DSTACK_ROUNDS", "1"))
DEEP: Any = json.loads("[" * 200 + "]" * 200)
STRANGE: tuple[Any, ...] = (
    *(10**400, -(10**400), 2**63, -1, 1e300, -1e300, math.inf, -math.inf, math.nan, 10**9 * 31_557_600),
    *("\ud800", "\x1b[2J", "a\nb", "x" * (1 << 21), "", True, None, [], {}, [None] * 70_000, DEEP, {"x": DEEP}),
)
"""10^9 years in seconds is the last number."""
QUEUE: dict[str, Any] = {
    "shared": True,
    "more": 0,
    "unfit": ["/var/tmp/x belongs to bob"],
    "tickets": [
        {
            "title": "calm-otter-7/train",
            "user": "alice",
            "priority": 0,
            "gpus": [0],
            "since": 5,
            "why": "",
            "demand": {"cpu": 1, "memory": 1 << 30, "gpus": 1, "gpu_name": "A100", "gpu_memory": 1 << 30},
            "fault": "it is a pipe",
            "file": "/var/lib/dstack-slots/x",
            "counts": True,
        }
    ],
}
EXIT = {"code": 0, "signal": None, "stopped": False, "reason": "r", "missing": ["a"], "started": 1.0, "ended": 2.0}
SPOOL = {"attempts": [{"nonce": "n" * 16, "state": "ended", "attempt": "jobs/x/"}]}
HERE = Host(name=HostName("box"))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every part of a JSON value, the value itself first."""
    yield path
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from places(item, (*path, name))


def put(value: Any, path: tuple[Any, ...], strange: Any) -> Any:
    """A copy of `value` with one part replaced."""
    if not path:
        return strange
    changed = copy.deepcopy(value)
    at = changed
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = strange
    return changed


def bounded(value: object) -> bool:
    """Whether all that stands in a built value can be shown, written and reckoned with."""
    if is_dataclass(value):
        return all(bounded(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, Mapping):
        return all(bounded(each) for item in value.items() for each in item) and len(value) <= 1 << 16
    if isinstance(value, tuple | list):
        return all(map(bounded, value)) and len(value) <= 1 << 16
    if isinstance(value, str):
        return len(value) <= 1 << 20 and bool(value.encode("utf-8", "surrogateescape") or True)
    if isinstance(value, float):
        return 0 <= value <= LATEST
    return value is None or (isinstance(value, int) and -(10**6) <= value < 2**63)


def tried(read: Callable[[], Any], kind: type[Exception]) -> tuple[Any, str]:
    """What was read, or what was said against it; any other error than of this kind is raised."""
    try:
        return read(), ""
    except kind as error:
        return None, str(error)


def shown_facts(facts: HostFacts) -> None:
    found = HostAnswer(host=HERE, value=HostCondition(facts=facts))
    row = host_report._row(found)
    table([Column(title="x")] * len(row), [row], io.StringIO())
    host_report.problems(found)


def shown_queue(said: HostQueue) -> None:
    found = HostAnswer(host=HERE, value=queue.QueueReport(queue=said))
    assert all(note.isprintable() for note in queue._notes(found))
    table(queue._COLUMNS, queue._rows(found), io.StringIO())


def reader(request: RequestMessage[Any]) -> Callable[[Any], Any]:
    """What the channel of `box` makes of an answer to this request; raises HostError where it makes no sense."""
    channel = Channel.__new__(Channel)
    channel.host = "box"

    def read(answer: Any) -> Any:
        try:
            return channel._read_answer(request, answer)
        except OtherVersionError as other:
            raise answers.other_version("box", other.spoken) from None

    return read


NONCE = "n" * 16
READ = {
    request.op: reader(request)
    for request in (HelloRequest(), QueueRequest(slots=1), StatusRequest(nonce=NONCE), SpoolRequest())
}
GO = reader(GoRequest(nonce=NONCE, environment={}))
ANSWERS: Mapping[str, tuple[Any, Callable[[Any], Any], Callable[[Any], None]]] = {
    "hello": (HELLO | {"place": "p"}, lambda answer: answers.facts("box", READ["hello"](answer)), shown_facts),
    "queue": (QUEUE, lambda answer: answers.queue(READ["queue"](answer)), shown_queue),
    "status": (
        {"state": "ended", "log": 5, "exit": EXIT},
        lambda answer: answers.status("box", READ["status"](answer)).exit,
        lambda report: None,
    ),
    "spool": (SPOOL, lambda answer: answers.spool(READ["spool"](answer)), lambda found: None),
    "go": ({"started": True, "at": 5.0}, lambda answer: GO(answer).at, lambda at: None),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_no_field_of_an_answer_of_a_host_does_more_than_fail_that_host(name: str) -> None:
    whole, read, show = ANSWERS[name]
    assert bounded(read(whole))
    show(read(whole))
    refused = 0
    for path in list(places(whole))[1:]:
        for strange in STRANGE:
            found, error = tried(partial(read, put(whole, path, strange)), HostError)
            if error:
                refused += 1
                assert error.startswith("box: ")
                assert len(error) < 1000, (path, error[:200])
            else:
                assert bounded(found), (path, strange)
                show(found)
    assert refused > 5


RECORDS = [
    cls
    for _, cls in inspect.getmembers(records, inspect.isclass)
    if is_dataclass(cls) and cls.__module__ == records.__name__ and "nonce" in cls.__dataclass_fields__
]


@pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
def test_no_field_of_a_record_does_more_than_make_it_unreadable(cls: type[Any]) -> None:
    refused = 0

    @settings(
        max_examples=ROUNDS,
        deadline=None,
        derandomize=ROUNDS == 1,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(any_value(cls), st.randoms(use_true_random=False))
    def check(value: Any, chance: random.Random) -> None:
        nonlocal refused
        whole = json.loads(records.pack(value))
        ways = [path for path in places(whole) if path and path[0] not in ("v", "kind")]
        for path in chance.sample(ways, min(len(ways), 40)):
            for strange in STRANGE:
                body = json.dumps(put(whole, path, strange)).encode()
                found, error = tried(partial(unpack, cls, "some/key", body), BucketError)
                refused += bool(error)
                assert bounded(found), (path, strange)
                assert not error or ("some/key" in error and len(error) < 1000)

    check()
    assert refused


@pytest.mark.parametrize("body", [b"[" * 100_000, b"9" * 5000, b'{"v":1,"kind":"%s","nonce":' + b"[" * 90_000])
def test_a_body_that_is_nested_or_long_beyond_reason_is_unreadable(body: bytes) -> None:
    for cls in RECORDS:
        with pytest.raises(BucketError):
            unpack(cls, "some/key", body.replace(b"%s", kind_of(cls).encode()))


@given(st.integers(0, 2**63 - 1), st.floats(0, LATEST), st.floats(0, LATEST))
def test_whatever_is_in_its_bounds_can_be_shown(size: int, then: float, now: float) -> None:
    assert size_text(size)
    assert duration_text(size)
    assert ago_text(then, now)
