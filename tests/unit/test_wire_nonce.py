"""One form of nonces on both sides of the wire."""

from __future__ import annotations

import pytest

from dstack.adapters.process_identity import new_nonce
from dstack.wire import is_nonce


def test_what_a_coordinator_makes_is_a_nonce_for_the_runner() -> None:
    assert all(is_nonce(new_nonce()) for _ in range(20))


@pytest.mark.parametrize(
    "value", ["", "a" * 15, "a" * 65, "A" * 32, "../" + "a" * 20, "a" * 32 + "\n", "ä" * 20, 7, None]
)
def test_anything_else_is_none(value: object) -> None:
    assert not is_nonce(value)
