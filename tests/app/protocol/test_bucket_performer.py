"""Reading a bucket on the spot: each effect has the bucket's own answer, and nothing is written."""

from __future__ import annotations

from typing import Any

import pytest

from dstack.app.effects import catalogue as fx
from dstack.app.effects.steps import ask
from dstack.app.protocol.bucket_performer import read_only
from tests.support.buckets.memory import MemoryBucket


@pytest.mark.parametrize(
    ("effect", "answer"),
    [
        (fx.Read("a/x/1"), b"123"),
        (fx.Read("a/x/3"), None),
        (fx.ListKeys("a/x/"), ["a/x/1", "a/x/2"]),
        (fx.Children("a/"), ["x/", "y"]),
        (fx.Sizes("a/x/"), {"a/x/1": 3, "a/x/2": 1}),
        (fx.Reaches("a/x/1", 3), True),
        (fx.Reaches("a/x/1", 4), False),
        (fx.Reaches("a/x/3", 1), False),
    ],
)
def test_each_effect_has_the_answer_of_the_bucket(effect: Any, answer: object) -> None:
    bucket = MemoryBucket()
    for key, body in (("a/x/1", b"123"), ("a/x/2", b"1"), ("a/y", b"")):
        bucket.create(key, body)
    before = dict(bucket.objects)
    assert read_only(ask(effect), bucket) == answer
    assert bucket.objects == before
