"""The register of a generation: all users are found by key, whatever a list lacks."""

from __future__ import annotations

import pytest

from dstack.app.protocol.generation_users import register, users_of
from dstack.core.format.keys import JobKeys, ProjectKeys
from dstack.core.format.records import User, pack
from dstack.model import Fingerprint
from tests.support.buckets.memory import MemoryBucket
from tests.support.simulator.fed_steps import play

KEYS: JobKeys = ProjectKeys.of("p").job(Fingerprint("f" * 64), 1)


@pytest.fixture
def bucket() -> MemoryBucket:
    return MemoryBucket()


def users(bucket: MemoryBucket) -> set[str]:
    return play(users_of(KEYS, KEYS.pins), bucket)[0]


def test_users_are_numbered_without_gaps_in_the_order_of_their_coming(bucket: MemoryBucket) -> None:
    for name in ("run-1", "run-2", "run-1"):
        play(register(KEYS, name), bucket)
    assert bucket.order == [KEYS.user(1), KEYS.user(2), KEYS.user(3)]
    assert users(bucket) == {"run-1", "run-2"}


def test_an_entry_that_another_user_took_at_the_same_moment_is_passed_over(bucket: MemoryBucket) -> None:
    class Overtaken(MemoryBucket):
        def get(self, key: str) -> bytes | None:
            found = super().get(key)
            if key == KEYS.user(1) and found is None:
                self.create(key, pack(User(nonce="other", name="faster")))
            return found

    overtaken = Overtaken()
    play(register(KEYS, "run-1"), overtaken)
    assert users(overtaken) == {"faster", "run-1"}


def test_pins_of_versions_that_did_not_register_count_and_damaged_entries_hide_no_later_one(
    bucket: MemoryBucket,
) -> None:
    play(register(KEYS, "run-1"), bucket)
    bucket.create(KEYS.user(2), b"damaged")
    bucket.create(KEYS.user(3), pack(User(nonce="n", name="../up")))
    play(register(KEYS, "run-4"), bucket)
    bucket.create(KEYS.pin("old-reader"), b"{}")
    assert users(bucket) == {"run-1", "run-4", "old-reader"}
