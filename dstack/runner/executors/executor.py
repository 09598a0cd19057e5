"""The seam between a supervisor and the way in which the commands of an attempt run: plain, or in a container.

An executor belongs to one attempt. The supervisor starts the job with an executor and asks the executor how the job
ended. Any runner of the account asks an executor for a job that lives outside of the supervisor's process tree, also
after the supervisor was killed.
"""

from __future__ import annotations

import os
from typing import ClassVar, Dict, Mapping, NamedTuple, Optional, Protocol, Tuple

from dstack.runner.base.spool import Attempt
from dstack.wire.job_messages import JOB_STOP_GRACE_S, JobOrder

ATTEMPT_VARIABLE = "DSTACK_ATTEMPT"
"""Name of an environment variable of every process of a job, with the nonce: finds orphans of a killed supervisor."""


class LogPipe(NamedTuple):
    """The pipe by which the output of a job with secrets comes to the supervisor, to be masked."""

    reader: int
    """The supervisor's end, non-blocking."""
    writer: Optional[int] = None
    """The job's end, to be inherited; None for a pipe with a path."""
    path: Optional[str] = None
    """Where the job opens the pipe; None for an inherited pipe."""


class Launch(NamedTuple):
    """Everything beside the order that a supervisor gives a job at the start."""

    secrets: Mapping[str, str]
    """The part of the environment that came with `go`."""
    gpus: Tuple[int, ...] = ()
    """The GPUs of the slot, as nvidia-smi counts."""
    inherited: Tuple[int, ...] = ()
    """Descriptors for every process of the job to keep open: their locks hold the slot and the attempt."""
    pipe: Optional[LogPipe] = None
    """Where the job writes its output; None: into the attempt's log."""


class Diagnosis(NamedTuple):
    """The findings of an executor about the end of a job, beyond the exit status of the started process."""

    reason: str = ""
    """Why the job failed, in words; "" leaves the words to the exit status."""
    out_of_memory: bool = False
    code_known: bool = True
    """False where the exit status is not the job's."""


class Executor(Protocol):
    """One way to run the commands of an attempt. Every executor is listed in `choice.EXECUTORS`, and nowhere else.

    `start` is called at most once, in the single-threaded process of the supervisor. `created`, `runs` and `remove`
    must do with the attempt's folder: any process of the account calls them, before the start and after every end.
    """

    kind: ClassVar[str]
    """A word for the executor's jobs, in messages and refusals."""
    has_keeper: ClassVar[bool]
    """Whether the started process alone gets SIGTERM and then ends the job by itself; else every process gets it."""
    stop_margin_s: ClassVar[float]
    """Seconds of an orderly stop beyond the grace of the job."""

    def __init__(self, attempt: Attempt) -> None: ...

    @classmethod
    def takes(cls, order: JobOrder) -> bool:
        """Whether an attempt with this order is for this executor."""

    def hints(self, gpus: Tuple[int, ...]) -> Tuple[str, ...]:
        """Lines for the log ahead of all output of the job."""

    def open_pipe(self) -> LogPipe:
        """Make the pipe for the output of a job with secrets; raises OSError where the job could not write to one."""

    def start(self, order: JobOrder, launch: Launch) -> int:
        """Start the job -> the pid of a child process, whose exit status is the job's; raises OSError or ValueError."""

    def diagnosis(self) -> Diagnosis:
        """The findings about the end of the job, once the started process has ended."""

    def label(self) -> str:
        """The name by which a person finds the job on the host."""

    def created(self) -> bool:
        """Whether the executor made something outside of the supervisor's process tree, for `remove` to take away."""

    def runs(self) -> Optional[bool]:
        """Whether the job runs outside of the supervisor's process tree; None where nothing is known."""

    def remove(self) -> bool:
        """End and take away everything outside of the supervisor's process tree; True when all is gone for sure."""


def marker(nonce: str) -> Dict[str, str]:
    """The environment variable of every process of the attempt."""
    return {ATTEMPT_VARIABLE: nonce}


def inherited_pipe() -> LogPipe:
    """A pipe for a job that is a child of the supervisor."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    return LogPipe(reader, writer=writer)


def named_pipe(path: str) -> LogPipe:
    """Make a pipe at `path`, for a job that inherits no descriptor of the supervisor; raises OSError."""
    os.mkfifo(path, 0o600)
    # Open for both ways: so the pipe has no end before the supervisor closes it, however many writers come and go.
    return LogPipe(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC), path=path)


def stop_grace(attempt: Attempt) -> float:
    """Seconds between SIGTERM and SIGKILL by the stop request in the attempt's folder; the default without one."""
    wish = attempt.read_stop()
    if wish is None:
        return JOB_STOP_GRACE_S
    return 0.0 if wish.abort else wish.grace
