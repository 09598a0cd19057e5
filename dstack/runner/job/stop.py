"""Ends a started attempt from any runner, early or late, with or without a living supervisor."""

from __future__ import annotations

import signal
import time
from typing import Iterable, Iterator, List

from dstack.runner.base.channel import Request
from dstack.runner.base.processes import (
    KILL_TIMEOUT_S,
    Process,
    descendants,
    describe,
    end_all,
    is_alive,
    look,
    orphans,
    send,
)
from dstack.runner.base.spool import Attempt, read_json
from dstack.runner.executors.choice import executor_for, executor_outside
from dstack.runner.executors.executor import ATTEMPT_VARIABLE
from dstack.runner.job.process import failed_report
from dstack.wire import ENDED, REFUSED, RUNNING, STARTED, UNKILLABLE, VANISHED, Refusal
from dstack.wire.job_messages import StopAnswer, StopRequest, StopWish

EXIT_POLL_S = 0.01
"""Seconds between two looks for the exit report of a job in the course of a stop."""
_UNKILLABLE_HINT = "look at these processes on the host"


def state(attempt: Attempt) -> str:
    """As Attempt.state, but a job outside of the supervisor's process tree counts as running, also where the executor
    does not know whether the job runs: a job may not be taken for gone on a guess."""
    return next(states([attempt]))


def states(attempts: Iterable[Attempt]) -> Iterator[str]:
    """The state of each attempt. Executors are asked until one does not know, and no further: each question may wait
    for half a minute."""
    answers = True
    for attempt in attempts:
        now = attempt.state()
        outside = executor_outside(attempt) if now == VANISHED else None
        if outside is not None:
            runs = outside.runs() if answers else None
            answers = runs is not None
            now = VANISHED if runs is False else RUNNING
        yield now


def stop(request: Request, order: StopRequest, attempt: Attempt) -> StopAnswer:
    """End the attempt; answers once no process is left. An attempt that never started is refused for good.

    Raises Refusal(UNKILLABLE) with the names of processes held by the kernel.
    """
    now = state(attempt)
    if now not in (RUNNING, ENDED, VANISHED):
        attempt.make()
        if attempt.decide(REFUSED) != STARTED:
            return StopAnswer(exit=None)
        now = state(attempt)
    if now == RUNNING:
        attempt.write_stop(StopWish(grace=order.grace, abort=order.abort))
        _until_ended(request, attempt, 0.0 if order.abort else order.grace)
    elif now == VANISHED:
        remove_outside(attempt)
    return StopAnswer(exit=attempt.read_exit())


def remove_outside(attempt: Attempt) -> None:
    """Remove everything outside of the process tree of a killed supervisor; the job itself may have ended.

    Raises Refusal, of the executor's kind, where the executor cannot remove everything.
    """
    outside = executor_outside(attempt)
    if outside is not None and not outside.remove():
        raise Refusal(outside.kind, "%s cannot be removed" % outside.label(), "remove it by hand")


def _until_ended(request: Request, attempt: Attempt, grace: float) -> None:
    named = read_json(attempt.supervisor) or {}
    supervisor = look(int(named.get("pid") or 0)) if is_alive(named) else None
    if supervisor is not None:
        send(supervisor, signal.SIGTERM)
        send(supervisor, signal.SIGCONT)  # a stopped supervisor would not see SIGTERM
    # The orderly stop, the ladder of signals behind it and the removal may each need the margin.
    order = attempt.read_order()
    margin = 0.0 if order is None else executor_for(attempt, order).stop_margin_s * 3
    deadline = time.monotonic() + grace + margin + KILL_TIMEOUT_S + 3
    while attempt.read_exit() is None:
        # Read again behind the look: a supervisor writes the report before it ends.
        if not is_alive(named) and attempt.read_exit() is None:
            _end_orphans(attempt, grace)
            return
        if time.monotonic() > deadline:
            left = descendants(int(str(named["pid"])))
            raise Refusal(UNKILLABLE, "the kernel does not end: %s" % describe(left), _UNKILLABLE_HINT)
        if request.pause(EXIT_POLL_S):
            raise Refusal("cancelled", "the request was cancelled; the stop goes on")


def _end_orphans(attempt: Attempt, grace: float) -> None:
    """End a job whose supervisor was killed, and write the exit report in place of the supervisor."""
    mark = ("%s=%s" % (ATTEMPT_VARIABLE, attempt.nonce)).encode("ascii")

    def living() -> List[Process]:
        return orphans(attempt.alive, mark)

    until = time.monotonic() + grace
    left = end_all(living, time.sleep, until=lambda: until)
    remove_outside(attempt)
    if left or attempt.lives():
        who = describe(left) or "somebody who holds %s" % attempt.alive
        raise Refusal(UNKILLABLE, "the kernel does not end: %s" % who, _UNKILLABLE_HINT)
    report = failed_report("its supervisor had been killed; what was left of the job was ended")
    attempt.note(report.reason)
    # Another stop of the same job may have reported meanwhile.
    if attempt.read_exit() is None:
        attempt.write_exit(report.replace(stopped=True))
