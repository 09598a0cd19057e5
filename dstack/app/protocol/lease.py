"""The lease of coordinators in this process: the seconds of `core/liveness.py`, shortened for tests.

The environment of this process's own account is read, once. No file, record or message can change the lease.
"""

from __future__ import annotations

import os

from dstack.core import liveness

SILENCE_VARIABLE = "DSTACK_SILENCE"
"""For tests only: seconds, within the bounds of `liveness.silence_of`. All machines of a test must have the same."""
SILENCE_S = liveness.silence_of(os.environ.get(SILENCE_VARIABLE, ""))
"""Seconds (of the observer's boot time) without change after which a coordinator counts as dead."""
BEAT_INTERVAL_S = SILENCE_S / 8
"""Seconds between two heartbeats of one coordinator."""
OVERDUE_S = SILENCE_S / 6
"""Seconds without change after which hosts that know for sure are asked."""
TAKEOVER_S = 1.25 * SILENCE_S
"""Seconds from the last beat of an attendant to the latest moment at which stand-by hosts have gone on."""
