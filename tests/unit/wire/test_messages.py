"""Every message of the wire: written and read back, with a field too few, too many, or of another kind.

`talk.jsonl` are the messages between a coordinator and a runner as they were encoded before they were types of their
own; its last lines are written by hand: what a host says of a lost attempt and of a queue, and the talk with the
coordinator on a host.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dstack import wire
from dstack.wire import coordinator_messages, host_messages, job_messages
from dstack.wire.message_form import DoneAnswer, Message, MisfitError, RequestMessage

MODULES = (job_messages, host_messages, coordinator_messages)
MESSAGES: list[type[Message]] = [
    DoneAnswer,
    *(
        each
        for module in MODULES
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Message) and each.__module__ == module.__name__
    ),
]
REQUESTS = {each.op: each for each in MESSAGES if issubclass(each, RequestMessage)}
TALK = Path(__file__).with_name("talk.jsonl").read_bytes().splitlines()
WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20)
NUMBERS = st.integers(1, 100)
"""Within the bounds of every field."""
CHOICES = {"state": wire.STATES, "sighting": wire.SIGHTINGS, "verdict": (wire.STARTED, wire.REFUSED)}
SPECIAL: dict[str, st.SearchStrategy[Any]] = {
    "nonce": st.from_regex(r"\A[a-z0-9]{16,64}\Z"),
    "blobs": st.lists(st.tuples(WORDS, NUMBERS), max_size=3).map(tuple),
    "inputs": st.lists(st.dictionaries(WORDS, WORDS), max_size=2).map(tuple),
    **{name: st.sampled_from(options) for name, options in CHOICES.items()},
}
EARLY = (wire.HELLO, wire.CODE_BASIS, wire.CODE_PUSH, wire.CANCEL)
"""Operations whose numbers the talk with a coordinator uses again."""
ALIEN = "alien"
"""A name that no field has."""


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a field by its type hint."""
    if hint in (str, int, float, bool):
        return {str: WORDS, int: NUMBERS, float: st.floats(1, 100), bool: st.booleans()}[hint]
    if isinstance(hint, type) and issubclass(hint, Message):
        return messages(hint)
    if get_origin(hint) is Union:
        return st.none() | values(get_args(hint)[0])
    if get_origin(hint) is tuple:
        return st.lists(values(get_args(hint)[0]), max_size=3).map(tuple)
    if get_origin(hint) is Mapping:
        return st.dictionaries(WORDS, WORDS, max_size=3)
    raise AssertionError(hint)


def messages(cls: type[Message]) -> st.SearchStrategy[Any]:
    hints = get_type_hints(cls)
    fields = {name: SPECIAL[name] if name in SPECIAL else values(hints[name]) for name in cls.fields}
    return st.fixed_dictionaries(fields).map(lambda found: cls(**found))


def over_the_wire(message: Message) -> Any:
    return json.loads(json.dumps(message.to_json()))


def required(cls: type[Message]) -> list[str]:
    """The fields that a request must have."""
    return [name for name, each in cls.fields.items() if each.is_required]


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
@settings(max_examples=10)
@given(data=st.data())
def test_a_message_is_read_as_it_was_written(cls: type[Message], data: st.DataObject) -> None:
    message = data.draw(messages(cls))
    assert cls.from_json(over_the_wire(message)) == message
    assert cls.from_other_version(over_the_wire(message)) == message
    if isinstance(message, RequestMessage):
        envelope = json.loads(json.dumps(message.envelope(7, 1024 if message.streams else None)))
        assert (envelope["id"], envelope["op"]) == (7, message.op)
        assert type(message).from_envelope(envelope) == message


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
@settings(max_examples=3)
@given(data=st.data())
def test_a_field_too_many_is_named_and_passed_over_from_other_versions(cls: type[Message], data: st.DataObject) -> None:
    message = data.draw(messages(cls))
    fields = {**over_the_wire(message), ALIEN: data.draw(WORDS | NUMBERS | st.none())}
    with pytest.raises(MisfitError) as caught:
        cls.from_json(fields)
    assert (caught.value.field, str(caught.value)) == (ALIEN, f"field '{ALIEN}' is unknown")
    assert cls.from_other_version(fields) == message


@pytest.mark.parametrize(("cls", "name"), [(cls, name) for cls in MESSAGES for name in required(cls)])
@settings(max_examples=3)
@given(data=st.data())
def test_a_field_too_few_is_named(cls: type[Message], name: str, data: st.DataObject) -> None:
    fields = over_the_wire(data.draw(messages(cls)))
    del fields[name]
    with pytest.raises(MisfitError) as caught:
        cls.from_json(fields)
    assert (caught.value.field, str(caught.value)) == (name, f"field '{name}' is missing")


@pytest.mark.parametrize(("cls", "name"), [(cls, name) for cls in MESSAGES for name in cls.fields])
@settings(max_examples=3)
@given(data=st.data())
def test_a_field_of_another_kind_is_named(cls: type[Message], name: str, data: st.DataObject) -> None:
    fields = over_the_wire(data.draw(messages(cls)))
    hint = get_type_hints(cls)[name]
    is_object = get_origin(hint) is Mapping or (isinstance(hint, type) and issubclass(hint, Message))
    fields[name] = [1.5] if is_object else {"odd": [1.5]}
    for read in (cls.from_json, cls.from_other_version):
        with pytest.raises(MisfitError) as caught:
            read(fields)
        assert caught.value.field.split(".")[0] == name


def test_files_of_an_earlier_version_get_what_was_before_their_fields_existed() -> None:
    order = job_messages.JobOrder.from_other_version({"script": "true", "prefix": None})
    assert (order.script, order.prefix, order.image, order.arguments, order.environment) == ("true", "", None, (), {})
    report = job_messages.ExitRecord.from_other_version({"code": 0})
    assert report.succeeded()
    assert (report.log_lost, report.missing, report.vanished) == ("", (), None)
    assert job_messages.StopWish.from_other_version({}) == job_messages.StopWish(grace=10.0, abort=False)
    with pytest.raises(MisfitError, match="field 'code' is missing"):
        job_messages.ExitRecord.from_other_version({})


def test_a_path_leads_to_the_wrong_value() -> None:
    ticket = {"title": "t", "user": "u", "priority": 0, "since": 1, "gpus": [0, -1]}
    with pytest.raises(MisfitError) as caught:
        host_messages.QueueAnswer.from_other_version({"tickets": [ticket], "shared": True})
    assert caught.value.field == "tickets[0].gpus[1]"
    with pytest.raises(MisfitError, match=r"field 'demand\.cpu' must be a whole number from 0 to 1048576"):
        job_messages.HoldRequest.from_json({"nonce": "a" * 16, "slots": 1, "demand": {"cpu": -1}})


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1, 1e10, True, "1"])
def test_seconds_have_bounds(bad: object) -> None:
    with pytest.raises(MisfitError, match="field 'grace' must be seconds"):
        job_messages.StopRequest.from_json({"nonce": "a" * 16, "grace": bad, "abort": False})


def test_text_that_nobody_can_write_is_refused() -> None:
    for cls, fields in ((job_messages.PackReadRequest, {"nonce": "a" * 16, "pack": "\ud800"}),):
        with pytest.raises(MisfitError, match="field 'pack' must be text that can be written"):
            cls.from_json(fields)
    job_messages.PackReadRequest.from_json({"nonce": "a" * 16, "pack": "\udcff"})


def test_a_message_is_a_frozen_value() -> None:
    one = job_messages.DropRequest(nonce="a" * 16)
    assert one == job_messages.DropRequest(nonce="a" * 16)
    assert one != job_messages.ReleaseRequest(nonce="a" * 16)
    assert one.replace(nonce="b" * 16).nonce == "b" * 16
    with pytest.raises(AttributeError):
        one.nonce = "b"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del one.nonce
    with pytest.raises(TypeError, match="lacks nonce"):
        job_messages.DropRequest()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="has no other"):
        job_messages.DropRequest(nonce="a" * 16, other=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("window", [-1, 1.5, True, "1", None])
def test_a_window_is_a_number_of_bytes_of_a_stream(window: object) -> None:
    fields = {"id": 1, "nonce": "a" * 16, "window": window}
    with pytest.raises(MisfitError, match="field 'window' must be a whole number"):
        job_messages.ManifestRequest.from_envelope({"op": wire.MANIFEST, **fields})
    with pytest.raises(MisfitError, match="field 'window' is unknown"):
        job_messages.ReleaseRequest.from_envelope({"op": wire.RELEASE, **fields, "window": 1})


def test_a_host_of_another_wire_version_is_told_by_its_version_alone() -> None:
    with pytest.raises(host_messages.OtherVersionError) as caught:
        host_messages.HelloRequest().answer_from({"wire": 2, "new": "form"})
    assert caught.value.spoken == 2


def test_every_message_is_encoded_as_before() -> None:
    asked: dict[int, RequestMessage[Any]] = {}
    for line in TALK:
        message = wire.unpack_message(line)
        if "op" in message:
            request = asked[message["id"]] = REQUESTS[message["op"]].from_envelope(message)
            again = request.envelope(message["id"], message.get("window"))
        else:
            again = {"id": message["id"], "ok": asked[message["id"]].answer_from(message["ok"]).to_json()}
        assert wire.pack_message(again)[wire.HEADER.size :] == line
    assert {type(request) for request in asked.values()} >= set(REQUESTS.values()) - {REQUESTS[op] for op in EARLY}
