"""What a started attempt runs, and how its end is put into words. Decisions only, but for what the host says."""

from __future__ import annotations

import shutil
import signal
from typing import Dict, List, Mapping, Optional

from dstack.runner.base.spool import Attempt

BASE = tuple(
    """
    PATH HOME USER LOGNAME SHELL LANG LANGUAGE TZ TMPDIR XDG_RUNTIME_DIR LD_LIBRARY_PATH CUDA_HOME
    VIRTUAL_ENV CONDA_PREFIX SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE PIP_INDEX_URL PIP_CONFIG_FILE
    http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY
    """.split()  # noqa: SIM905 - one name a line would be longer than all the rest of this file
)
"""What a job takes over from the account it runs under; all else of the connection's environment stays out."""
MARKER = "DSTACK_ATTEMPT"
"""In the environment of everything that belongs to an attempt: finds orphans whose supervisor was killed."""
DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


def marker(nonce: str) -> Dict[str, str]:
    return {MARKER: nonce}


def environment(
    own: Mapping[str, str], nonce: str, written: Mapping[str, str], secret: Mapping[str, str]
) -> Dict[bytes, bytes]:
    """The environment of a plain job: the base, then what `prepare` gave, then what `go` gave."""
    base = {name: own[name] for name in BASE if name in own}
    base.update({name: value for name, value in own.items() if name.startswith("LC_")})
    base.setdefault("PATH", DEFAULT_PATH)
    return encoded({**base, **written, **secret, **marker(nonce)})


def encoded(values: Mapping[str, str]) -> Dict[bytes, bytes]:
    """Names and values as the kernel takes them, UTF-8 whatever the host's locale is."""
    return {
        name.encode("utf-8", "surrogateescape"): value.encode("utf-8", "surrogateescape")
        for name, value in values.items()
    }


def command(attempt: Attempt, arguments: List[str]) -> List[bytes]:
    """The argv of a plain job: bash where there is one, else sh."""
    shell = shutil.which("bash") or shutil.which("sh") or "/bin/sh"
    argv = [shell, "-e", attempt.script, *arguments]
    return [part.encode("utf-8", "surrogateescape") for part in argv]


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "signal %d" % number


def oom_kills() -> int:
    """How many processes the kernel killed for want of memory since boot; 0 where it does not say."""
    try:
        with open("/proc/vmstat", encoding="ascii") as file:
            for line in file:
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 0


def reason(code: Optional[int], number: Optional[int], *, out_of_memory: bool, disk_full: bool) -> str:
    """Why a job that nobody stopped failed, in words; empty for a success."""
    if code == 0:
        return ""
    killed = number if number is not None else (code - 128 if code is not None and code > 128 else None)
    text = "ended by %s" % signal_name(number) if number is not None else "exit code %s" % code
    if number is None and killed is not None and killed <= 64:
        text += " (a command was ended by %s)" % signal_name(killed)
    if killed == signal.SIGKILL and out_of_memory:
        text += "; the host ran out of memory"
    if disk_full:
        text += "; the disk of the host is full"
    return text
