"""Processes of this host: identity, descent, and the end of whole trees.

A process is named by (pid, start time, boot id), so that a stranger with the same pid is never signalled. Linux has
/proc and subreapers, and the ladder is exact. Elsewhere (macOS) `ps` and process groups serve: a process that leaves
both parent and group before the first look is not found there.
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

from dstack.wire import BOOT_ID_VARIABLE, is_boot_id

PR_SET_CHILD_SUBREAPER = 36
HAS_PROC = os.path.isdir("/proc/self/fd")
HOLLOW_STATE = "Z+"
"""State of a process whose first thread has ended while others run: the process's own /proc entries are empty."""
KILL_TIMEOUT_S = 5.0
"""Seconds after SIGKILL until a living process counts as unkillable."""


class Process(NamedTuple):
    """A process at the time of a look."""

    pid: int
    parent: int
    group: int
    state: str
    started: str
    name: str


def become_subreaper() -> bool:
    """Make orphans below this process children of this process; False where the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def boot_id() -> str:
    """A word that differs after every boot of this host.

    The word comes from the kernel or, in tests, from the environment of the account on this host; a malformed word
    there is ignored. No message of a coordinator can change the word.
    """
    forced = os.environ.get(BOOT_ID_VARIABLE, "")
    if is_boot_id(forced):
        return forced
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return _output(["sysctl", "-n", "kern.boottime"]).strip() or "unknown"


def table() -> Dict[int, Process]:
    """Every visible process, by pid."""
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
    """The process with this pid, None when gone."""
    if not HAS_PROC:
        return _ps(pid).get(pid)
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return None
    # The name stands in parentheses and may hold anything, parentheses included.
    head, _, tail = text.rpartition(")")
    # Numbered as in proc(5) from 3 on: [1] is the parent, [17] the number of threads, [19] the start time.
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
    """The identity of process `pid` for ever: pid, start time, boot id."""
    process = look(pid)
    return {"pid": pid, "started": process.started if process else "", "boot_id": boot_id()}


def is_alive(named: Dict[str, object]) -> bool:
    """Whether the process named by `identity` still runs (a zombie does not)."""
    pid = named.get("pid")
    if not isinstance(pid, int) or named.get("boot_id") != boot_id():
        return False
    process = look(pid)
    return process is not None and process.state != "Z" and process.started == named.get("started")


def send(process: Process, number: int) -> None:
    """Signal exactly this process; a later process with the same pid is spared (by pidfd on a system with pidfds)."""
    try:
        if not hasattr(os, "pidfd_open"):
            now = look(process.pid)
            if now is not None and now.started == process.started:
                os.kill(process.pid, number)
            return
        # Before the look: behind this descriptor no other process can take the place of the one looked at.
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
    """Every living process below `root`, and every living member of process group `group`; zombies do not count."""
    everyone = table()
    return below(everyone, [root], group)


def below(everyone: Dict[int, Process], roots: Iterable[int], group: Optional[int] = None) -> List[Process]:
    """The living members of a process table that descend from `roots` (left out themselves) or are in `group`.

    Parents come before their children: a shell with a trap must hear of the end before the shell sees a child die.
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
    """Processes of a table by their number of ancestors in the table."""

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
    """The ladder: SIGTERM to the processes of `first` (default `living`), then SIGKILL until nothing is left.

    `until` gives, asked again and again, the time of the monotonic clock up to which SIGTERM has a chance;
    `wait(seconds)` passes time and reaps. Returns the unkillable processes (uninterruptible in the kernel) after
    KILL_TIMEOUT_S seconds of trying; an empty list means: nothing is left.
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
    """SIGKILL until nothing is left; two empty looks in a row, since a fork may hide from a single look."""
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
    """Processes of an attempt without a supervisor: holders of the lock on `alive`, processes with `marker` in the
    environment, and descendants of both. Only this user's own; needs /proc."""
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
    """The folders of /proc about a process: the process's own, or the threads' where the process's own is empty."""
    folder = "/proc/%d" % process.pid
    if process.state != HOLLOW_STATE:
        return [folder]
    try:
        return [os.path.join(folder, "task", name) for name in os.listdir(folder + "/task")]
    except OSError:
        return []


def _holds(face: str, path: str) -> bool:
    """Whether the process holds the lock on `path`; an observer with the file open does not count."""
    try:
        for name in os.listdir(face + "/fd"):
            if os.readlink("%s/fd/%s" % (face, name)) != path:
                continue
            with open("%s/fdinfo/%s" % (face, name), "rb") as file:
                # Supervisor and job hold an exclusive lock (WRITE); observers take a shared lock (READ).
                if re.search(rb"FLOCK\s+ADVISORY\s+WRITE", file.read()):
                    return True
    except OSError:
        # The process has ended, or is another account's, and none of this attempt.
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
