"""The parts of errors: the sentence that stands alone, and the detail beside the name of a host or an object."""

from __future__ import annotations

import pytest

from dstack.errors import (
    BucketError,
    DamagedObjectError,
    DstackError,
    HostError,
    HostUnreachableError,
    LaterVersionError,
)

LATER = "was written by a later version of dstack"


@pytest.mark.parametrize(
    ("error", "sentence", "detail"),
    [
        (HostError("box", "the disk is full"), "box: the disk is full", "the disk is full"),
        (HostUnreachableError("box", "no route"), "box: no route", "no route"),
        (HostError("box", "box: odd"), "box: box: odd", "box: odd"),
        (DamagedObjectError.of("a/b", "is no record"), "a/b is no record", "is no record"),
        (
            LaterVersionError("a"),
            "a was written by a later version of dstack",
            "was written by a later version of dstack",
        ),
        (DamagedObjectError("a", "a, field b: odd"), "a, field b: odd", "a, field b: odd"),
        (BucketError("it is shut"), "it is shut", "it is shut"),
    ],
)
def test_a_detail_is_the_sentence_without_the_name_in_front(error: DstackError, sentence: str, detail: str) -> None:
    assert (str(error), error.detail) == (sentence, detail)
