"""How many schedules the simulator plays, and which. Read by its test, by the header of pytest and by mutants."""

from __future__ import annotations

import os
from datetime import UTC, datetime

CI_SCHEDULES = 3_000
"""As many as CI plays each time; other ones on every day."""
MUTANT_SCHEDULES = 20_000
"""As many as each mutant of the protocol meets, from seed 0 on: a rare race is seen by few of them. CI plays as many in
a week."""
SCHEDULES = int(os.environ.get("DSTACK_SCHEDULES", CI_SCHEDULES))
DAY_SEEDS = 1_000_000
"""No two days play the same seed."""
FIRST_SEED = int(os.environ.get("DSTACK_SEED") or datetime.now(UTC).date().toordinal() * DAY_SEEDS)
"""The first seed; it moves with the date, unless DSTACK_SEED fixes it."""
HEADER = f"simulator: {SCHEDULES} schedules from seed {FIRST_SEED} on; DSTACK_SEED={FIRST_SEED} plays the same again"
