"""What a beat says, whoever wrote the object."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dstack.bounds import MAX_REMARK
from dstack.core.foreign_attempts import Sighting
from dstack.core.heartbeats import MAX_ATTEMPTS, MAX_STANDBY_HOSTS, Heartbeat, decode_beat, encode_beat

NAMES = st.text("abcdef0123456789", min_size=1, max_size=8)
TIMES = st.integers(1, 10**10).map(float)
BEATS = st.builds(
    Heartbeat,
    at=TIMES | st.just(0.0),
    until=TIMES | st.just(0.0),
    unreachable=st.dictionaries(NAMES, TIMES, max_size=3),
    sightings=st.dictionaries(NAMES, st.sampled_from([each.value for each in Sighting]), max_size=3),
    waits=st.dictionaries(NAMES, st.dictionaries(NAMES, NAMES, min_size=1, max_size=3), max_size=3),
    standby=st.lists(NAMES, max_size=3).map(tuple),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("at", "until", "unreachable", "sightings", "waits", "standby")


@given(st.integers(0, 10**6), BEATS)
def test_a_beat_is_read_as_it_was_written(number: int, beat: Heartbeat) -> None:
    assert decode_beat(encode_beat(number, beat)) == beat


@given(st.integers(0, 10**6))
def test_two_beats_of_one_process_differ(number: int) -> None:
    assert encode_beat(number) != encode_beat(number + 1)


def test_a_beat_without_anything_to_say_is_its_number() -> None:
    assert encode_beat(0) == b'{"beat":0}'


@given(st.dictionaries(st.sampled_from(FIELDS), JSON) | JSON)
def test_a_beat_of_any_json_is_read_without_an_error(value: Any) -> None:
    beat = decode_beat(json.dumps(value).encode())
    assert decode_beat(encode_beat(1, beat)) == Heartbeat(
        at=float(int(beat.at)),
        until=float(int(beat.until)),
        unreachable={name: float(int(since)) for name, since in beat.unreachable.items() if since >= 1},
        sightings=beat.sightings,
        waits=beat.waits,
        standby=beat.standby,
    )


@given(st.none() | st.binary(max_size=20))
def test_bytes_that_are_no_beat_say_nothing(body: bytes | None) -> None:
    assert decode_beat(body) == Heartbeat()


def test_a_beat_is_cut_on_both_sides() -> None:
    many = Heartbeat(
        unreachable={str(number): 1.0 for number in range(MAX_ATTEMPTS + 1)},
        standby=tuple(map(str, range(MAX_STANDBY_HOSTS + 1))),
    )
    written = json.loads(encode_beat(1, many))
    assert (len(written["unreachable"]), len(written["standby"])) == (MAX_ATTEMPTS, MAX_STANDBY_HOSTS)
    foreign = {"standby": ["h"] * (MAX_STANDBY_HOSTS + 1), "waits": {"r": {"train": "x" * (MAX_REMARK + 1), "b": " "}}}
    read = decode_beat(json.dumps(foreign).encode())
    assert len(read.standby) == MAX_STANDBY_HOSTS
    assert read.waits == {"r": {"train": "x" * MAX_REMARK}}
