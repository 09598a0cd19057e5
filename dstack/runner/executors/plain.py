"""Commands that run as a child process of the supervisor, in the account's own environment."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import ClassVar, Dict, List, Mapping, Optional, Sequence, Tuple

from dstack.runner.base.spool import Attempt
from dstack.runner.executors.executor import Diagnosis, Launch, LogPipe, inherited_pipe, marker
from dstack.runner.queue import devices
from dstack.wire.job_messages import JobOrder

INHERITED_VARIABLES = tuple(
    """
    PATH HOME USER LOGNAME SHELL LANG LANGUAGE TZ TMPDIR XDG_RUNTIME_DIR LD_LIBRARY_PATH CUDA_HOME
    VIRTUAL_ENV CONDA_PREFIX SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE PIP_INDEX_URL PIP_CONFIG_FILE
    http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY
    """.split()  # noqa: SIM905 - one name a line would be longer than all the rest of this file
)
"""Environment variables that a job takes over from the account; all else of the connection's environment stays out."""
DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
JOB_UMASK = 0o022
"""The usual umask, so that the modes of artifacts do not depend on the host."""
OOM_SCORE = "100"
"""Above the supervisor's: when memory runs out the kernel shall end the job and leave the supervisor, to tell of it."""


class PlainExecutor:
    """A job as a child of the supervisor: the ladder of signals reaches every process of the job."""

    kind: ClassVar[str] = "process"
    has_keeper: ClassVar[bool] = False
    stop_margin_s: ClassVar[float] = 0.0

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    @classmethod
    def takes(cls, order: JobOrder) -> bool:
        return True

    def hints(self, gpus: Tuple[int, ...]) -> Tuple[str, ...]:
        if gpus or not devices.has_gpus():
            return ()
        return ("this host has GPUs, and the job sees none: ask for them by `resources: {gpu: 1}`",)

    def open_pipe(self) -> LogPipe:
        return inherited_pipe()

    def start(self, order: JobOrder, launch: Launch) -> int:
        attempt = self._attempt
        log = os.open(attempt.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        output = log if launch.pipe is None or launch.pipe.writer is None else launch.pipe.writer
        try:
            child = subprocess.Popen(
                command(attempt, order.arguments),
                cwd=attempt.project(order.prefix),
                env=environment(
                    os.environ,
                    attempt.nonce,
                    order.environment,
                    {**launch.secrets, **devices.gpu_environment(launch.gpus)},
                ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=launch.inherited,
                # On a system without subreapers the job is found by its process group.
                start_new_session=True,
                umask=JOB_UMASK,
            )
        finally:
            os.close(log)
        child.returncode = 0  # the supervisor reaps the child, not Popen
        _prefer_for_oom(child.pid)
        return child.pid

    def diagnosis(self) -> Diagnosis:
        return Diagnosis()

    def label(self) -> str:
        return self._attempt.nonce

    def created(self) -> bool:
        return False

    def runs(self) -> Optional[bool]:
        return False

    def remove(self) -> bool:
        return True


def environment(
    own: Mapping[str, str], nonce: str, written: Mapping[str, str], secret: Mapping[str, str]
) -> Dict[bytes, bytes]:
    """The environment of a job: INHERITED_VARIABLES of `own`, then `written` by `prepare`, then `secret` from `go`."""
    base = {name: own[name] for name in INHERITED_VARIABLES if name in own}
    base.update({name: value for name, value in own.items() if name.startswith("LC_")})
    base.setdefault("PATH", DEFAULT_PATH)
    # The marker last: no variable of the job may take its place, for orphans are found by the marker.
    return _encoded({**base, **written, **secret, **marker(nonce)})


def _encoded(values: Mapping[str, str]) -> Dict[bytes, bytes]:
    """Names and values in UTF-8 for the kernel, whatever the host's locale is."""
    return {
        name.encode("utf-8", "surrogateescape"): value.encode("utf-8", "surrogateescape")
        for name, value in values.items()
    }


def command(attempt: Attempt, arguments: Sequence[str]) -> List[bytes]:
    """The argv of a job: bash on a host that has bash, else sh."""
    shell = shutil.which("bash") or shutil.which("sh") or "/bin/sh"
    argv = [shell, "-e", attempt.script, *arguments]
    return [part.encode("utf-8", "surrogateescape") for part in argv]


def _prefer_for_oom(pid: int) -> None:
    try:
        with open("/proc/%d/oom_score_adj" % pid, "w", encoding="ascii") as file:
            file.write(OOM_SCORE)
    except OSError:
        # A wish and no condition: the job may have ended already, and not every system has /proc.
        pass
