"""Records go to bytes and back, and nothing that lies in a bucket can raise anything but BucketError."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dstack.core.format import records
from dstack.core.format.records import MAX_RECORD, End, Owner, RunRecord, decode, encode, kind_of, pack, unpack
from dstack.errors import BucketError
from tests.support.records.any_value import JSON, any_value

RECORDS = [
    value
    for value in vars(records).values()
    if getattr(value, "__module__", "") == records.__name__ and isinstance(value, type)
]
ANY_RECORD = pytest.mark.parametrize("cls", RECORDS, ids=kind_of)
FEW = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])


def test_the_record_classes_are_found() -> None:
    assert {Owner, End, RunRecord} <= set(RECORDS)


@ANY_RECORD
def test_a_record_survives_the_way_through_the_bucket(cls: type[Any]) -> None:
    @FEW
    @given(any_value(cls))
    def check(record: Any) -> None:
        body = pack(record)
        assert unpack(cls, "key", body) == record
        assert pack(unpack(cls, "key", body)) == body

    check()


@ANY_RECORD
def test_foreign_bytes_raise_bucket_error_and_nothing_else(cls: type[Any]) -> None:
    names = [field.name for field in fields(cls)]
    hostile = st.binary() | st.builds(
        lambda data: json.dumps({"v": 1, "kind": kind_of(cls), **data}).encode(),
        st.dictionaries(st.sampled_from([*names, "v", "kind", "more"]), JSON),
    )

    @given(hostile)
    def check(body: bytes) -> None:
        try:
            record = unpack(cls, "some/key", body)
        except BucketError as error:
            message = str(error)
        else:
            assert isinstance(record, cls)
            return
        assert "some/key" in message

    check()


@ANY_RECORD
def test_one_foreign_field_in_a_good_record_is_taken_or_refused(cls: type[Any]) -> None:
    @FEW
    @given(any_value(cls), st.sampled_from([field.name for field in fields(cls)]), JSON)
    def check(record: Any, name: str, data: Any) -> None:
        body = json.dumps({**json.loads(pack(record)), name: data}).encode()
        try:
            taken = unpack(cls, "some/key", body)
        except BucketError as error:
            message = str(error)
        else:
            assert isinstance(taken, cls)
            return
        assert f"some/key, field {name}" in message

    check()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 500_000,
        b'{"a":' * 100_000,
        b'{"v":1,"kind":"end","nonce":"n","status":"s","ended":' + b"9" * 10_000 + b"}",
        b'{"v":1,"kind":"end","nonce":"n","status":"s","ended":1e999}',
        b'{"v":1,"kind":"end","nonce":"n","status":"s","ended":NaN}',
        b'{"v":"1","kind":"end","nonce":"n","status":"s","ended":1}',
        b'{"v":null,"kind":"end","nonce":"n","status":"s","ended":1}',
        b'{"kind":"end","nonce":"n","status":"s","ended":1}',
        b'{"v":1,"kind":["end"],"nonce":"n","status":"s","ended":1}',
        b'{"v":1,"kind":"want","nonce":"n","status":"s","ended":1}',
        b" " * (MAX_RECORD + 1),
    ],
    ids=range(16),
)
def test_bytes_that_are_no_such_record_are_refused_by_key(body: bytes) -> None:
    with pytest.raises(BucketError, match="some/key"):
        unpack(End, "some/key", body)


def test_a_record_of_a_later_version_is_refused_with_the_way_out() -> None:
    with pytest.raises(BucketError, match="later version") as caught:
        decode("end", "k", b'{"v":2,"kind":"end"}')
    assert caught.value.hint == "upgrade this dstack"


def test_fields_of_the_future_are_ignored() -> None:
    body = encode("end", {"nonce": "n", "status": "s", "ended": 1, "colour": {"deep": [1]}})
    assert unpack(End, "k", body).ended == 1


def test_a_record_above_the_limit_is_refused_before_it_is_written() -> None:
    with pytest.raises(BucketError, match="the limit is"):
        pack(End(nonce="n", status="failed", reason="x" * MAX_RECORD))


def test_a_path_that_is_not_unicode_survives() -> None:
    reason = b"\xff\xfe".decode("utf-8", "surrogateescape")
    assert unpack(End, "k", pack(End(nonce="n", status="failed", reason=reason))).reason == reason


def test_kinds_differ_and_hide_no_field() -> None:
    assert len({kind_of(cls) for cls in RECORDS}) == len(RECORDS)
    assert not any({"v", "kind"} & {field.name for field in fields(cls)} for cls in RECORDS)
