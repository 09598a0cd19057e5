"""A started job, from the first command to the exit report."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from typing import List, Mapping, Optional, Tuple

from dstack.runner.base import disk_room
from dstack.runner.base.processes import Process, become_subreaper, descendants, describe, end_all, kill_all, look
from dstack.runner.base.spool import Attempt, sync_file
from dstack.runner.base.stopwatch import Stopwatch
from dstack.runner.executors.executor import Executor, Launch, stop_grace
from dstack.runner.job import exit_reason
from dstack.runner.job.log_disk_room import LogRoom
from dstack.runner.job.masked_log import MaskedLog
from dstack.runner.job.secret_patterns import patterns
from dstack.runner.store import artifacts
from dstack.wire import Refusal
from dstack.wire.job_messages import ExitRecord, JobOrder

LEFTOVER_GRACE_S = 5.0
"""Seconds between SIGTERM and SIGKILL for processes left behind by a script at its own end."""
JOB_POLL_S = 1.0
"""Seconds between two looks for a stop and for the end of the time limit."""
LOG_POLL_S = 0.05
"""Seconds between two looks at the room of the log: a shorter shortage of disk space may go unnoticed."""


class JobProcess:
    """The parent's side of one job. Single-threaded; `start` once, then `run`, or `abandon` after an exception.

    Only the executor knows how the commands run.
    """

    def __init__(
        self,
        attempt: Attempt,
        order: JobOrder,
        executor: Executor,
        inherited: Tuple[int, ...],
        gpus: Tuple[int, ...] = (),
    ) -> None:
        self._attempt = attempt
        self._order = order
        self._executor = executor
        self._inherited = inherited
        self._gpus = gpus
        self._pid: int = 0
        self._status: Optional[int] = None
        self._failure = ""
        self._stopped = False
        self._reason = ""
        self._childless = False
        self._masked: Optional[MaskedLog] = None
        self._log_room = LogRoom(attempt.log)
        self._loss_noted = False
        self._log_checked_at = time.monotonic()
        self._subreaper = become_subreaper()
        self._watch = Stopwatch()
        self._ooms = exit_reason.oom_kills()
        self._wake, wakeup = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        self._got_signal = False
        # Only a signal with a Python handler puts a byte into the wake-up pipe.
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)

    # -- start ------------------------------------------------------------------------------------

    def start(self, secrets: Mapping[str, str]) -> None:
        """Start the job; a job without a start ends at once, with the reason in the log.

        No value of `secrets` of 4 or more bytes comes into the log, in any of the encodings of `patterns`.
        """
        for line in self._executor.hints(self._gpus):
            self._attempt.note(line)
        try:
            hidden = patterns(secrets.values())
            if hidden:
                self._masked = MaskedLog(self._attempt, hidden, self._executor.open_pipe())
            # Without anything to hide there is no pipe: the job writes to the log itself, and masking costs nothing.
            pipe = self._masked.pipe if self._masked is not None else None
            self._pid = self._executor.start(self._order, Launch(secrets, self._gpus, self._inherited, pipe))
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self._failure = "the job could not be started: %s" % error
            self._attempt.note(self._failure)
        finally:
            if self._masked is not None:
                self._masked.close_job_end()

    # -- watching ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Wait for the job's end, end all remaining processes, and write the exit report."""
        limit = self._order.max_duration
        deadline = time.monotonic() + limit if limit else None
        while self._pid and self._status is None and not self._reason:
            now = time.monotonic()
            self._wait(JOB_POLL_S if deadline is None else max(0.0, min(JOB_POLL_S, deadline - now)))
            late = deadline is not None and time.monotonic() >= deadline
            self._look_for_stop("stopped after max-duration of %s s" % limit if late else "")
        if self._reason and not self._stopped:
            self._note(self._reason)
        if self._pid:
            self._end_tree()
        self._report()

    def abandon(self) -> None:
        """End the job at once, without a report."""
        kill_all(self._living, self._wait)
        if self._masked is not None:
            self._masked.finish()
        self._executor.remove()

    def _look_for_stop(self, late: str) -> None:
        """Give the end of the job a reason if there is a cause to end; `late` is the reason by the clock, "" before the
        limit."""
        if self._status is not None:
            return
        if self._attempt.read_stop() is not None:
            self._stopped = True
            self._reason = "stopped"
        elif late:
            self._reason = late
        elif self._got_signal:
            self._reason = "the supervisor was told to end by a signal; the host may be shutting down"

    def _end_tree(self) -> None:
        began = time.monotonic()
        left = self._living()
        if self._status is not None and not left:
            self._remove_outside()
            return
        if self._status is not None:
            self._note("the script ended; ending what it left behind: %s" % describe(left))
        left = end_all(self._living, self._wait, until=lambda: began + self._term_seconds(), first=self._stop_targets)
        while left:
            self._note("cannot be ended, waiting for the kernel: %s" % describe(left))
            # One line a minute in the log is enough.
            for _ in range(60):
                self._wait(JOB_POLL_S)
                left = self._living()
                if not left:
                    break
        self._remove_outside()

    def _term_seconds(self) -> float:
        """Seconds between SIGTERM and SIGKILL; a later `stop` may shorten them."""
        if self._status is not None and not self._stopped and not self._reason:
            return LEFTOVER_GRACE_S
        grace = stop_grace(self._attempt)
        return grace + self._executor.stop_margin_s if grace else grace

    def _stop_targets(self) -> List[Process]:
        """The processes to send SIGTERM to: all, or the keeper alone of a job with a keeper."""
        if not self._executor.has_keeper:
            return self._living()
        keeper = look(self._pid)
        return [keeper] if keeper is not None and self._status is None else []

    def _living(self) -> List[Process]:
        self._reap()
        # Orphans of a subreaper are its children: without children there is nothing to look for in /proc.
        if self._subreaper and self._childless:
            return []
        left = descendants(os.getpid(), None if self._subreaper else self._pid)
        if not left:
            self._reap()  # zombies do not count as living, but the job's own end must be known by then
        return left

    def _wait(self, seconds: float) -> None:
        self._carry_until(time.monotonic() + seconds)
        try:
            # Each byte in the wake-up pipe is the number of a signal.
            self._got_signal = signal.SIGTERM in os.read(self._wake, 4096) or self._got_signal
        except BlockingIOError:
            pass
        self._reap()

    def _check_log(self) -> None:
        """Every LOG_POLL_S, take room for the log, and write output that waits for room."""
        if time.monotonic() - self._log_checked_at >= LOG_POLL_S:
            self._log_checked_at = time.monotonic()
            self._log_room.look()
            if self._masked is not None:
                self._masked.flush()
            elif self._log_room.loss and not self._log_room.is_full:
                self._note_loss()

    def _note_loss(self) -> None:
        if not self._loss_noted:
            self._loss_noted = True
            self._attempt.note(self._log_room.loss, apart=True)

    def _carry_until(self, deadline: float) -> None:
        """Wait until a signal comes or the time has passed; meanwhile carry the job's output into the masked log."""
        masked = self._masked
        while True:
            sources = [self._wake] if masked is None or masked.reader is None else [self._wake, masked.reader]
            ready, _, _ = select.select(sources, [], [], max(0.0, min(LOG_POLL_S, deadline - time.monotonic())))
            if masked is not None and masked.reader in ready:
                masked.pump()
            self._check_log()
            if self._wake in ready or time.monotonic() >= deadline:
                return

    def _note(self, text: str) -> None:
        """Add a line of dstack's own to the log, behind all output of the job so far."""
        if self._masked is not None:
            self._masked.note(text)
        else:
            self._attempt.note(text)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._childless = True
                return
            self._childless = False
            if pid == 0:
                return
            if pid == self._pid and self._status is None:
                self._status = status

    def _remove_outside(self) -> None:
        """Keep the slot until everything outside of the process tree is gone for sure."""
        if not self._executor.created():
            return
        noted = False
        while not self._executor.remove():
            if not noted:
                self._note("the %s cannot be removed; trying on" % self._executor.kind)
            noted = True
            self._wait(JOB_POLL_S)

    # -- the end ----------------------------------------------------------------------------------

    def _report(self) -> None:
        attempt = self._attempt
        report = failed_report(self._failure).replace(started=self._watch.began, stopped=self._stopped)
        if self._status is not None:
            report = self._with_outcome(report, self._status)
        report = report.replace(missing=self._missing())
        if report.code == 0 and report.missing and not self._stopped:
            report = report.replace(reason="artifacts that do not exist: %s" % ", ".join(report.missing))
            self._note(report.reason)
        # Only behind the last note, which the log that `_end_log` closes would lack.
        report = report.replace(log_lost=self._end_log())
        report = report.replace(ended=self._watch.now())
        while True:
            try:
                # The last file of the attempt: whoever finds the report finds the whole log.
                attempt.write_exit(report)
                return
            except OSError:
                time.sleep(JOB_POLL_S)  # a full or sick disk: this is all that is left to do

    def _end_log(self) -> str:
        """Bring the log to the disk -> in words, how much of the log is missing for good, "" for nothing."""
        self._log_room.look()
        loss = self._log_room.loss
        if self._masked is not None:
            self._masked.finish()
            loss = self._masked.loss
        elif loss:
            self._attempt.give_room()
            self._note_loss()
        try:
            sync_file(self._attempt.log)
        except OSError as error:
            # Some file systems, of the network above all, only say now that they had no room.
            loss = loss or "the end of the log may be missing: %s" % error.strerror
        self._log_room.close()
        return loss

    def _missing(self) -> Tuple[str, ...]:
        """The artifacts of the order that do not exist."""
        named = self._order.artifacts
        try:
            return tuple(artifacts.missing(self._attempt.project(self._order.prefix), named))
        except (Refusal, OSError) as error:
            self._note("artifacts cannot be looked at: %s" % error)
            return named

    def _with_outcome(self, report: ExitRecord, status: int) -> ExitRecord:
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        code = None if number is not None else os.WEXITSTATUS(status)
        diagnosis = self._executor.diagnosis()
        why = diagnosis.reason or exit_reason.reason(
            code,
            number,
            out_of_memory=exit_reason.oom_kills() > self._ooms or diagnosis.out_of_memory,
            disk_full=bool(self._log_room.loss) or disk_room.is_full(self._attempt.folder),
        )
        if not diagnosis.code_known:
            code = None
        return report.replace(code=code, signal=number, reason=self._reason or why)


def failed_report(reason: str) -> ExitRecord:
    """The exit report of a job without a known exit code."""
    now = time.time()
    return ExitRecord(
        code=None, signal=None, stopped=False, reason=reason, missing=(), log_lost="", started=now, ended=now
    )
