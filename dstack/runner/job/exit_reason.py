"""How the end of a job is put into words. Decisions only, but for the kernel's count of processes out of memory."""

from __future__ import annotations

import signal
from typing import Optional


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "signal %d" % number


def oom_kills() -> int:
    """Count of the processes killed by the kernel for want of memory since boot; 0 on a system without the count."""
    try:
        with open("/proc/vmstat", encoding="ascii") as file:
            for line in file:
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 0


def reason(code: Optional[int], number: Optional[int], *, out_of_memory: bool, disk_full: bool) -> str:
    """Why a job without a stop failed, in words; empty for a success."""
    if code == 0:
        return ""
    # A shell exits with 128 + n for a command that signal n has ended.
    killed = number if number is not None else (code - 128 if code is not None and code > 128 else None)
    text = "ended by %s" % signal_name(number) if number is not None else "exit code %s" % code
    if number is None and killed is not None and killed <= 64:
        text += " (a command was ended by %s)" % signal_name(killed)
    if killed == signal.SIGKILL and out_of_memory:
        text += "; the host ran out of memory"
    if disk_full:
        text += "; the disk of the host is full"
    return text
