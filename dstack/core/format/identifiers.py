"""The forms of run ids and of names in keys and records, each beside its check."""

from __future__ import annotations

import re

from dstack.model import RunId

RUN_ID_PATTERN = r"[0-9]{13}-[A-Za-z0-9]{1,32}"
"""The pattern of a run id: 13 digits to sort the newest run first, and a random tail."""
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
"""The pattern of the name of a run or a workflow, and of the user of a pin."""

is_run_id = re.compile(RUN_ID_PATTERN, re.ASCII).fullmatch
"""Whether a text is the id of a run (truthy) or not (None)."""
is_name = re.compile(NAME_PATTERN, re.ASCII).fullmatch
"""Whether a text can be a name in a key (truthy) or not (None)."""


def inverted(milliseconds: int) -> str:
    """13 digits to sort the newest time first; `milliseconds` since the epoch, cut to the range of 13 digits."""
    # At least 1, because the rest for 0 would have 14 digits.
    return f"{10**13 - max(1, min(milliseconds, 10**13 - 1)):013d}"


def run_id(milliseconds: int, tail: str) -> RunId:
    """The id of a run made `milliseconds` after the epoch; the id sorts before the ids of all earlier runs.

    `tail` is 1 to 32 random letters and digits.
    """
    return RunId(f"{inverted(milliseconds)}-{tail}")
