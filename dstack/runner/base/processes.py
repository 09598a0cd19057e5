"""Processes of this host: who they are, who descends from whom, and how to end them all.

A process is named by (pid, start time, boot id), so that a pid that was given to a stranger is never signalled.
Linux has /proc and subreapers, which makes the ladder exact. Elsewhere (macOS) `ps` and process groups serve:
there a process that leaves both its parent and its group before the first look is not found.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, Set

PR_SET_CHILD_SUBREAPER = 36
HAS_PROC = os.path.isdir("/proc/self/fd")
HOLLOW_STATE = "Z+"
"""State of a process whose first thread has ended while others run: its own /proc entries are empty."""
KILL_TIMEOUT_S = 5.0
"""Seconds after SIGKILL until a process that is still there is called unkillable."""
BOOT_ID_VARIABLE = "DSTACK_BOOT_ID"
"""For tests only, whose hosts are containers and share the boot id of one kernel: set by sshd for the account."""
BOOT_ID_FORM = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Process(NamedTuple):
    """One process as it was seen."""

    pid: int
    parent: int
    group: int
    state: str
    started: str
    name: str


def become_subreaper() -> bool:
    """Make orphans below this process its own children; False where the system has no such thing."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def boot_id() -> str:
    """A word that differs after every boot of this host.

    It comes from the kernel or, in tests, from the environment that this host gives to the account; a malformed word
    there is ignored. Nothing that a coordinator sends can change it.
    """
    forced = os.environ.get(BOOT_ID_VARIABLE, "")
    if BOOT_ID_FORM.fullmatch(forced):
        return forced
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return _output(["sysctl", "-n", "kern.boottime"]).strip() or "unknown"


def table() -> Dict[int, Process]:
    """Every process that can be seen, by pid."""
    if not HAS_PROC:
        return _ps()
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            process = look(int(name))
            if process is not None:
                found[process.pid] = process
    return found


def look(pid: int) -> Optional[Process]:
    """One process, None when it is gone."""
    if not HAS_PROC:
        return _ps(pid).get(pid)
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return None
    # The name stands in parentheses and may hold anything, parentheses included.
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    # A program whose first thread has ended looks like a zombie while its other threads run on.
    state = HOLLOW_STATE if fields[0] == "Z" and int(fields[17]) > 1 else fields[0]
    return Process(pid, int(fields[1]), int(fields[2]), state, fields[19], head.partition("(")[2])


def _ps(pid: Optional[int] = None) -> Dict[int, Process]:
    which = ["-A"] if pid is None else ["-p", str(pid)]
    found = {}
    for line in _output(["ps", *which, "-o", "pid=,ppid=,pgid=,stat=,lstart=,comm="]).splitlines():
        fields = line.split(None, 9)
        if len(fields) == 10:
            started = " ".join(fields[4:9])
            found[int(fields[0])] = Process(
                int(fields[0]), int(fields[1]), int(fields[2]), fields[3][0], started, fields[9]
            )
    return found


def _output(command: List[str]) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace")


def identity(pid: int) -> Dict[str, object]:
    """What names process `pid` for ever: pid, start time, boot id."""
    process = look(pid)
    return {"pid": pid, "started": process.started if process else "", "boot_id": boot_id()}


def is_alive(named: Dict[str, object]) -> bool:
    """Whether the process that `identity` named still runs (a zombie does not)."""
    pid = named.get("pid")
    if not isinstance(pid, int) or named.get("boot_id") != boot_id():
        return False
    process = look(pid)
    return process is not None and process.state != "Z" and process.started == named.get("started")


def send(process: Process, number: int) -> None:
    """Signal exactly this process; a later one with the same pid is spared (by pidfd where there is one)."""
    try:
        if not hasattr(os, "pidfd_open"):
            now = look(process.pid)
            if now is not None and now.started == process.started:
                os.kill(process.pid, number)
            return
        fd = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        now = look(process.pid)
        if now is not None and now.started == process.started:
            signal.pidfd_send_signal(fd, number)  # type: ignore[attr-defined,unused-ignore]
    except OSError:
        pass
    finally:
        os.close(fd)


def descendants(root: int, group: Optional[int] = None) -> List[Process]:
    """Every living process below `root`, and every one of process group `group`; zombies do not count."""
    everyone = table()
    return below(everyone, [root], group)


def below(everyone: Dict[int, Process], roots: Iterable[int], group: Optional[int] = None) -> List[Process]:
    """The living members of a process table that descend from `roots` (which are left out) or are in `group`.

    Parents come before their children: a shell that is to run its trap must hear of the end before it sees a child die.
    """
    children: Dict[int, List[int]] = {}
    for process in everyone.values():
        children.setdefault(process.parent, []).append(process.pid)
    tops = set(roots)
    found: Set[int] = set()
    queue = list(tops)
    while queue:
        for child in children.get(queue.pop(), ()):
            if child not in found:
                found.add(child)
                queue.append(child)
    if group is not None:
        found |= {process.pid for process in everyone.values() if process.group == group}
    return parents_first(everyone, (everyone[pid] for pid in found - tops if everyone[pid].state != "Z"))


def parents_first(everyone: Dict[int, Process], some: Iterable[Process]) -> List[Process]:
    """Processes of a table by the number of their ancestors in it."""

    def depth(process: Process) -> int:
        seen: Set[int] = set()
        while process.parent in everyone and process.pid not in seen:
            seen.add(process.pid)
            process = everyone[process.parent]
        return len(seen)

    return sorted(some, key=depth)


def end_all(
    living: Callable[[], List[Process]],
    wait: Callable[[float], None],
    *,
    until: Callable[[], float],
    first: Optional[Callable[[], List[Process]]] = None,
) -> List[Process]:
    """The ladder: SIGTERM to all that `first` (default `living`) names, then SIGKILL until nothing is left.

    `until` says, asked again and again, up to which time of the monotonic clock SIGTERM is given a chance;
    `wait(seconds)` passes time and reaps. Returns what could not be killed (uninterruptible in the kernel) after
    LADDER_PATIENCE seconds of trying; empty means: nothing is left.
    """
    for process in (first or living)():
        send(process, signal.SIGTERM)
        # A stopped process would see SIGTERM only when somebody continues it.
        send(process, signal.SIGCONT)
    while time.monotonic() < until():
        if not living():
            return []
        wait(0.02)
    return kill_all(living, wait)


def kill_all(living: Callable[[], List[Process]], wait: Callable[[float], None]) -> List[Process]:
    """SIGKILL until nothing is left; two empty looks in a row, since a fork may hide from one."""
    deadline = time.monotonic() + KILL_TIMEOUT_S
    quiet = 0
    while True:
        left = living()
        quiet = 0 if left else quiet + 1
        if quiet == 2:
            return []
        if left and time.monotonic() > deadline:
            return left
        for process in left:
            send(process, signal.SIGKILL)
        wait(0.002)


def orphans(alive: str, marker: bytes) -> List[Process]:
    """Processes of an attempt whose supervisor is gone: that hold the lock on `alive`, have `marker` in their
    environment, or descend from one of those. Only this user's own; needs /proc."""
    if not HAS_PROC:
        return []
    path = os.path.realpath(alive)
    everyone = table()
    own = os.getpid()
    tops = [
        pid
        for pid, process in everyone.items()
        if pid != own and any(_holds(face, path) or _has_marker(face, marker) for face in _faces(process))
    ]
    found = {process.pid: process for process in below(everyone, tops)}
    found.update({pid: everyone[pid] for pid in tops if everyone[pid].state != "Z"})
    found.pop(own, None)
    return parents_first(everyone, found.values())


def _faces(process: Process) -> List[str]:
    """The folders of /proc that tell of a process: its own, or those of its threads where its own tells nothing."""
    folder = "/proc/%d" % process.pid
    if process.state != HOLLOW_STATE:
        return [folder]
    try:
        return [os.path.join(folder, "task", name) for name in os.listdir(folder + "/task")]
    except OSError:
        return []


def _holds(face: str, path: str) -> bool:
    """Whether the process holds the lock on `path`; one that only looks at it (an observer) does not count."""
    try:
        for name in os.listdir(face + "/fd"):
            if os.readlink("%s/fd/%s" % (face, name)) != path:
                continue
            with open("%s/fdinfo/%s" % (face, name), "rb") as file:
                if re.search(rb"FLOCK\s+ADVISORY\s+WRITE", file.read()):
                    return True
    except OSError:
        pass
    return False


def _has_marker(face: str, marker: bytes) -> bool:
    try:
        with open(face + "/environ", "rb") as file:
            return marker in file.read().split(b"\0")
    except OSError:
        return False


def describe(left: Iterable[Process]) -> str:
    """Processes in words: "123 (python, state D)"."""
    return ", ".join("%d (%s, state %s)" % (process.pid, process.name, process.state) for process in left)
