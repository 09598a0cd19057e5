"""The fake bucket keeps the port's promises: the same suite as every implementation."""

from __future__ import annotations

import inspect

import pytest

from dstack.ports import Bucket
from tests.contract import test_bucket
from tests.support.buckets.memory import MemoryBucket

globals().update(
    {
        name: test
        for name, test in inspect.getmembers(test_bucket, inspect.isfunction)
        if name.startswith("test_") and "bucket" in inspect.signature(test).parameters
    }
)


@pytest.fixture
def bucket() -> Bucket:
    return MemoryBucket()


def test_the_suite_is_the_whole_one() -> None:
    assert sum(name.startswith("test_") for name in globals()) > 20
