"""Finds the processes of one test by /proc, and sends signals to them at random: the same decisions for a seed.

A process belongs to a place when its environment, as it was started with, names the place's folder of slots, or when
it is a job of the place's. Signals go through a pidfd that was opened before the look: never to somebody else.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CLI, COORDINATOR, RUNNER, SUPERVISOR, JOB, ZOMBIE = "cli", "coordinator", "runner", "supervisor", "job", "zombie"
VICTIMS = (CLI, COORDINATOR, RUNNER, SUPERVISOR)
"""Roles that the adversary goes for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A process of the place."""

    pid: int
    role: str
    line: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What marks the processes of one test."""

    folder: Path

    def marks(self) -> tuple[bytes, bytes]:
        return f"DSTACK_SLOTS_DIR={self.folder / 'slots'}".encode(), f"JUDGE={self.folder / 'judge'}".encode()

    def processes(self) -> list[Found]:
        """All of them but this one, jobs included, in the order of their numbers."""
        numbers = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
        return [found for pid in numbers if pid != os.getpid() and (found := self.look(pid)) is not None]

    def look(self, pid: int) -> Found | None:
        """The process of that number if it is one of the place's."""
        try:
            entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            ours, jobs = self.marks()
            if ours not in entries and jobs not in entries:
                return None
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            role = JOB if jobs in entries else _role(pid, argv)
        except OSError:
            return None
        return Found(pid=pid, role=role, line=" ".join(argv)[:200])

    def zombies(self) -> list[Found]:
        """Ended processes whose parent is one of the place's and has not asked for their end."""
        ours = {found.pid: found for found in self.processes()}
        dead = []
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            with suppress(OSError):
                state, parent = _state(pid)
                if state == "Z" and parent in ours:
                    dead.append(Found(pid=pid, role=ZOMBIE, line=f"of {ours[parent]}"))
        return dead


def _role(pid: int, argv: list[str]) -> str:
    parent = _state(pid)[1]
    if parent and _state(parent)[0] == "D":
        return "other"  # a vfork: until its exec the child looks like its parent
    if "dstack" in argv:
        return COORDINATOR if "_coordinate" in argv else CLI
    files = _files(pid)
    if any(file.endswith(".log") and "/coordinators/" in file for file in files):
        return COORDINATOR
    if _attempts(files):  # a supervisor's child is the job, also in the moment before it is the job's program
        return JOB if _attempts(files) & _attempts(_files(parent)) else SUPERVISOR
    return RUNNER if "-S" in argv else "other"


def _state(pid: int) -> tuple[str, int]:
    """The state of a process, and its parent."""
    state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    return state, int(parent)


def _files(pid: int) -> set[str]:
    """What a process has open; nothing of one that is gone or somebody else's."""
    files = set()
    with suppress(OSError):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                files.add(os.readlink(fd))
    return files


def _attempts(files: set[str]) -> set[str]:
    """Of open files those that an attempt's supervisor and job hold."""
    return {file for file in files if file.endswith("/alive") and "/spool/" in file}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One blow: after `wait` seconds a process of `role`, the one at `share` of them, is killed (0) or stopped."""

    wait: float
    role: str
    share: float
    stopped: float

    @staticmethod
    def draw(chance: random.Random, weights: Sequence[int]) -> Decision:
        role = chance.choices(VICTIMS, weights=weights)[0]
        wait, share = chance.uniform(0.02, 0.35), chance.random()
        stopped = chance.choice((0.0, 0.1 + 2.9 * chance.random() ** 3))
        return Decision(wait=wait, role=role, share=share, stopped=stopped)


class Adversary(threading.Thread):
    """Carries out its decisions, then lets everything that it stopped go on. `told` says what it hit."""

    def __init__(self, place: Place, seed: str, blows: int) -> None:
        super().__init__(name="adversary")
        chance = random.Random(seed)
        self._place = place
        hatred = [chance.choice((1, 3, 9)) for _ in VICTIMS]
        self._decisions = [Decision.draw(chance, hatred) for _ in range(blows)]
        self._stopped: list[tuple[float, int]] = []
        self._begin = time.monotonic()
        self.told: list[str] = []

    def run(self) -> None:
        try:
            for decision in self._decisions:
                self._pass(decision.wait)
                self._strike(decision)
        finally:
            self._pass(max([0.0, *(until - time.monotonic() for until, _ in self._stopped)]))

    def at(self) -> float:
        """Seconds since the storm began."""
        return time.monotonic() - self._begin

    def _pass(self, seconds: float) -> None:
        """Let time go by, and those whose time has come go on."""
        end = time.monotonic() + seconds
        while self._stopped or time.monotonic() < end:
            due = [entry for entry in self._stopped if entry[0] <= time.monotonic()]
            for entry in due:
                self._stopped.remove(entry)
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(entry[1], signal.SIGCONT)
                os.close(entry[1])
            if time.monotonic() >= end:
                return
            time.sleep(0.01)

    def _strike(self, decision: Decision) -> None:
        victims = [found for found in self._place.processes() if found.role in VICTIMS]
        victims = [found for found in victims if found.role == decision.role] or victims
        if not victims:
            return
        victim = victims[int(decision.share * len(victims))]
        try:
            handle = os.pidfd_open(victim.pid)
        except ProcessLookupError:
            return
        kept = False
        try:
            if self._place.look(victim.pid) != victim:
                return  # somebody else by now, or it became something else
            number = signal.SIGSTOP if decision.stopped else signal.SIGKILL
            signal.pidfd_send_signal(handle, number)
            if decision.stopped:
                self._stopped.append((time.monotonic() + decision.stopped, handle))
                kept = True
            for_ = f" for {decision.stopped:.2f} s" if decision.stopped else ""
            self.told.append(f"{self.at():.2f} {number.name} {victim.role} {victim.pid}{for_}: {victim.line[:60]}")
        except ProcessLookupError:
            return
        finally:
            if not kept:
                os.close(handle)
