"""Notes below the tables of `dstack ps` and `dstack show`, for the eye of a person."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

from dstack.app.queries.run_views import Caretakers, JobView, RunView
from dstack.core.foreign_attempts import describe
from dstack.ui.tables import brief
from dstack.ui.times import ago_text, clock_text, silence_text


def out_of_sight(view: RunView, now: float) -> list[str]:
    """Notes about jobs out of sight now: since when, and the commands for a person who knows more."""
    lines = []
    going_on = view.caretakers is not None and bool(view.caretakers.standby)
    if view.caretakers is not None and view.caretakers.by and going_on:
        lines.append(f"{view.run}: {_takeover(view.caretakers, now)}")
    for job in map(_brief, view.jobs):
        if job.lost:
            lines.append(f"{view.run}: {job.workflow}: {lost_text(job.lost)}: dstack stop {view.handle}")
        where = f"{view.run}: {job.workflow} on {job.host}"
        if job.sighting and not going_on:
            sighting = describe(job.sighting, job.host, job.account, f"dstack attach {view.handle}")
            lines.append(f"{view.run}: {job.workflow}: {sighting}")
        elif job.unreachable:
            silence = f"{where}: unreachable since {clock_text('%H:%M', job.unreachable)}"
            lines.append(f"{silence}; if it will not be back: dstack lost {view.handle} {job.workflow}")
        elif job.unheard and not (view.alone or going_on):
            lines.append(f"{where}: {silence_text(job.owner, job.unheard, now)}")
    return lines


def _brief(job: JobView) -> JobView:
    """The job with texts of hosts and claims cut to the length of a note."""
    return replace(job, host=brief(job.host), account=brief(job.account), owner=brief(job.owner))


def _takeover(caretakers: Caretakers, now: float) -> str:
    """`no sign of alice@laptop for 50 s; gpu-1 stands by and goes on with it within 2 min`, or a later state of the
    takeover."""
    # Imported here on purpose: most lists have no such run.
    from dstack.app.protocol.lease import TAKEOVER_S
    from dstack.core.placement import names_text

    minutes = math.ceil((caretakers.last_beat + TAKEOVER_S - now) / 60)
    stand, go, have = ("stands", "goes", "has") if len(caretakers.standby) == 1 else ("stand", "go", "have")
    soon = f" and {go} on with it within {minutes} min" if minutes > 0 else f", but {have} not gone on with it yet"
    silence = silence_text(brief(caretakers.last), caretakers.last_beat, now)
    return f"{silence}; {names_text([*map(brief, caretakers.standby)])} {stand} by{soon}"


def lost_text(attempts: tuple[int, ...]) -> str:
    """`attempt 1 was called lost and may still run`."""
    several = len(attempts) > 1
    numbers = ", ".join(map(str, attempts))
    return f"attempt{'s' * several} {numbers} {'were' if several else 'was'} called lost and may still run"


def left_alone(view: RunView, now: float) -> list[str]:
    """Notes about a run without a coordinator: since when, waiting results by host, and the way out; else nothing."""
    if not view.alone or view.caretakers is None:
        return []
    if view.caretakers.standby:
        return [f"{view.run}: {_takeover(view.caretakers, now)}"]
    reason = "nobody looks after it"
    if view.caretakers.last_beat:
        reason = silence_text(brief(view.caretakers.last), view.caretakers.last_beat, now)
    if view.caretakers.credentials_end:
        ended = ago_text(view.caretakers.credentials_end, now)
        reason = f"the credentials that {brief(view.caretakers.last)} had been lent ended {ended}"
    waiting = Counter((job.host, job.account) for job in map(_brief, view.jobs) if job.ownerless)
    lines = [f"{view.run}: {reason}: dstack attach {view.handle}"]
    for (host, account), count in waiting.items():
        noun = "1 result waits" if count == 1 else f"{count} results wait"
        whose = f" for account {account}" if account else ""
        lines.append(f"  {noun} on {host}{whose}, or {'is' if count == 1 else 'are'} still being made there")
    return lines
