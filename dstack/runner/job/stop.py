"""Ending a started attempt from any runner, early or late, whether its supervisor still lives or not."""

from __future__ import annotations

import signal
import time
from typing import Any, Dict, Iterable, Iterator, List

from dstack.runner.base.channel import Request
from dstack.runner.base.processes import (
    LADDER_PATIENCE,
    Process,
    descendants,
    describe,
    end_all,
    is_alive,
    look,
    orphans,
    send,
)
from dstack.runner.base.refusal import Refusal
from dstack.runner.base.spool import Attempt, read_json
from dstack.runner.job import container, job_command
from dstack.runner.job.process import GRACE, failed_report
from dstack.wire import ENDED, REFUSED, RUNNING, STARTED, UNKILLABLE, VANISHED

LOOK = 0.01
_LOOK_THERE = "look at these processes on the host"


def state(attempt: Attempt) -> str:
    """As Attempt.state, but a container that outlived everything else counts as running, and so does one of which
    Docker does not say whether it does: nobody may take it for gone."""
    return next(states([attempt]))


def states(attempts: Iterable[Attempt]) -> Iterator[str]:
    """The state of each attempt. Docker is asked until it does not answer, and then no more: each question may wait for
    half a minute."""
    answers = True
    for attempt in attempts:
        now = attempt.state()
        if now == VANISHED and container.was_created(attempt):
            runs = container.is_running(attempt.nonce) if answers else None
            answers = runs is not None
            now = VANISHED if runs is False else RUNNING
        yield now


def stop(request: Request, attempt: Attempt) -> Dict[str, Any]:
    """End the attempt; answers once nothing of it is left. One that never started is refused for good.

    Raises Refusal(UNKILLABLE) naming the processes that the kernel does not let go.
    """
    grace = request.fields.get("grace", GRACE)
    if not isinstance(grace, (int, float)) or isinstance(grace, bool) or grace < 0:
        raise Refusal("request", "stop: field 'grace' must be seconds")
    abort = bool(request.fields.get("abort"))
    now = state(attempt)
    if now not in (RUNNING, ENDED, VANISHED):
        attempt.make()
        if attempt.decide(REFUSED) != STARTED:
            return {"exit": None}
        now = state(attempt)
    if now == RUNNING:
        attempt.write_stop({"grace": grace, "abort": abort})
        _until_ended(request, attempt, 0.0 if abort else float(grace))
    elif now == VANISHED:
        remove_container(attempt)
    return {"exit": attempt.read_exit()}


def remove_container(attempt: Attempt) -> None:
    """Remove the container of an attempt whose supervisor was killed before it could; it may have ended by itself.

    Raises Refusal("container") where Docker does not remove it.
    """
    if container.was_created(attempt) and not container.remove(attempt.nonce):
        raise Refusal("container", "%s cannot be removed" % container.name(attempt.nonce), "remove it by hand")


def _until_ended(request: Request, attempt: Attempt, grace: float) -> None:
    named = read_json(attempt.supervisor) or {}
    supervisor = look(int(named.get("pid") or 0)) if is_alive(named) else None
    if supervisor is not None:
        send(supervisor, signal.SIGTERM)
        send(supervisor, signal.SIGCONT)
    margin = container.MARGIN * 3 if (attempt.read_attempt() or {}).get("image") else 0.0
    deadline = time.monotonic() + grace + margin + LADDER_PATIENCE + 3
    while attempt.read_exit() is None:
        if not is_alive(named) and attempt.read_exit() is None:
            _end_orphans(attempt, grace)
            return
        if time.monotonic() > deadline:
            left = descendants(int(str(named["pid"])))
            raise Refusal(UNKILLABLE, "the kernel does not end: %s" % describe(left), _LOOK_THERE)
        if request.pause(LOOK):
            raise Refusal("cancelled", "the request was cancelled; the stop goes on")


def _end_orphans(attempt: Attempt, grace: float) -> None:
    """Do what the supervisor, killed itself, cannot do any more, and report in its place."""
    mark = ("%s=%s" % (job_command.MARKER, attempt.nonce)).encode("ascii")

    def living() -> List[Process]:
        return orphans(attempt.alive, mark)

    until = time.monotonic() + grace
    left = end_all(living, time.sleep, until=lambda: until)
    remove_container(attempt)
    if left or attempt.lives():
        who = describe(left) or "somebody who holds %s" % attempt.alive
        raise Refusal(UNKILLABLE, "the kernel does not end: %s" % who, _LOOK_THERE)
    report = failed_report("its supervisor had been killed; what was left of the job was ended")
    report["stopped"] = True
    report["missing"] = []
    attempt.note(report["reason"])
    if attempt.read_exit() is None:
        attempt.write_exit(report)
