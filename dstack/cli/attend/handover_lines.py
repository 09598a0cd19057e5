"""Lines about a run left to hosts: the hosts that go on with the run, and the other hosts."""

from __future__ import annotations

import time

from dstack.app.coordination.handover import HandoverResult
from dstack.ui.terminal import clean
from dstack.ui.times import clock_text


def where_it_goes_on(handed: HandoverResult) -> str:
    """`goes on …`, and the meaning for this machine."""
    if not handed.taken:
        return "goes on in the background of this machine"
    taken = ", ".join(handed.taken)
    if not handed.left:
        return f"goes on by itself on {taken}: this machine may be shut"
    rest = ", ".join(each.name for each in handed.left)
    return f"goes on by itself on {taken}, and on {rest} as long as this machine is awake"


def left_out_lines(handed: HandoverResult) -> list[str]:
    """Why hosts do not go on by themselves, a line for each host with a reason."""
    return [f"{each.name}: {clean(each.detail)}" for each in handed.left if each.why]


def credential_lines(handed: HandoverResult, run: str) -> list[str]:
    """How long the hosts can write to the bucket with the lent credentials, and the way out afterwards."""

    def moment(end: float) -> str:
        # Further away, the time of day alone does not tell the day.
        return clock_text("%H:%M" if end < time.time() + 12 * 3600 else "%Y-%m-%d %H:%M", end)

    return [
        f"{name} has your credentials for the bucket until {moment(end)}: what ends later waits there for"
        f" `dstack attach {run}`"
        for name, end in handed.until
    ]
