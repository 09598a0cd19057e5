"""The shipped steps under seeded adversaries: no lost job, no double start, no wrong outcome, nothing stuck.

A failing seed replays: `World(seed).play()`. DSTACK_SCHEDULES sets how many are played.
"""

from __future__ import annotations

import os

import pytest

from tests.support.simulator.world import World

SCHEDULES = int(os.environ.get("DSTACK_SCHEDULES", "2000"))
BATCHES = 20


@pytest.mark.parametrize("batch", range(BATCHES))
def test_every_schedule_ends_right(batch: int) -> None:
    size = SCHEDULES // BATCHES
    for seed in range(batch * size, (batch + 1) * size):
        try:
            World(seed).play()
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
