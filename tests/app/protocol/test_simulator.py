"""The shipped steps under seeded adversaries: no lost job, no double start, no wrong outcome, nothing stuck.

The first seed moves with the date. A failing seed replays: `World(seed).play()`, or `DSTACK_SEED=<seed>
DSTACK_SCHEDULES=1`. DSTACK_SCHEDULES sets how many are played.
"""

from __future__ import annotations

import pytest

from tests.support.simulator.schedules import FIRST_SEED, HEADER, SCHEDULES
from tests.support.simulator.world import World

BATCHES = 20


@pytest.mark.parametrize("batch", range(BATCHES))
def test_every_schedule_ends_right(batch: int) -> None:
    for seed in range(FIRST_SEED + batch, FIRST_SEED + SCHEDULES, BATCHES):
        try:
            World(seed).play()
        except Exception as error:
            raise AssertionError(f"DSTACK_SEED={seed} DSTACK_SCHEDULES=1: {error!r}\n{HEADER}") from error
