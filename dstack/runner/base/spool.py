"""The folder of an attempt, `<dir>/spool/<nonce>/`: paths, the verdict, the exit report, the state.

Everything that outlives a runner is here. Files for the decisions of other processes are written whole: the verdict by
link(2), once; the rest by rename.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from typing import Any, Dict, Iterator, Optional, Type, TypeVar

from dstack.private_folder import make_folder
from dstack.wire import ENDED, HELD, REFUSED, RUNNING, STARTED, UNKNOWN, VANISHED, Refusal, is_nonce
from dstack.wire.job_messages import ExitRecord, JobOrder, StopWish
from dstack.wire.message_form import Message, MisfitError

M = TypeVar("M", bound=Message)
_DAMAGED = "look at the file; `release` forgets the attempt"

RESERVED_BYTES = 4096
"""Bytes kept for the exit report."""


class Attempt:
    """Paths of an attempt's folder, and their contents. Raises Refusal for a malformed nonce."""

    def __init__(self, root: str, nonce: object) -> None:
        if not isinstance(nonce, str) or not is_nonce(nonce):
            raise Refusal("nonce", "not a nonce: %.80r" % (nonce,), "a nonce is 16 to 64 of a-z and 0-9")
        self.root = root
        self.nonce = nonce
        self.folder = os.path.join(root, "spool", nonce)
        self.attempt = os.path.join(self.folder, "attempt.json")
        self.supervisor = os.path.join(self.folder, "supervisor.json")
        self.alive = os.path.join(self.folder, "alive")
        self.verdict = os.path.join(self.folder, "verdict")
        self.log = os.path.join(self.folder, "log")
        self.exit = os.path.join(self.folder, "exit.json")
        self._reserve = self.exit + ".reserve"
        self._room = self.log + ".reserve"
        self.work = os.path.join(self.folder, "work")
        self.script = os.path.join(self.folder, "script.sh")
        self.stop = os.path.join(self.folder, "stop.json")
        self.manifest = os.path.join(self.folder, "manifest.jsonl")
        self.container = os.path.join(self.folder, "container")

    def make(self) -> None:
        """Create the folder; an existing folder of this account's is fine."""
        make_folder(self.folder)

    def exists(self) -> bool:
        return os.path.isdir(self.folder)

    def project(self, prefix: str) -> str:
        """The folder that the job runs in; raises Refusal when `prefix` would leave the work tree."""
        parts = prefix.split("/")
        if prefix.startswith("/") or ".." in parts or "\0" in prefix:
            raise Refusal("prepare", "the project folder %r leaves the repository" % prefix)
        return os.path.join(self.work, *[part for part in parts if part not in ("", ".")])

    # -- the verdict ------------------------------------------------------------------------------

    def read_verdict(self) -> Optional[str]:
        """STARTED, REFUSED, or None before the decision."""
        return read_text(self.verdict)

    def decide(self, verdict: str) -> str:
        """Write `verdict` unless a verdict stands; returns the standing verdict, for ever and on disk.

        Where `reserve` has written both beforehand, no verdict needs room on the disk.
        """
        # The file that `reserve` wrote, where there is one: a link to a written file needs no room on the disk.
        source = "%s.%s" % (self.verdict, verdict)
        temporary = "" if read_text(source) == verdict else "%s.%d.%d" % (source, os.getpid(), time.monotonic_ns())
        if temporary:
            write_durably(temporary, verdict.encode("ascii"))
        else:
            sync_file(source)
            os.utime(source)  # the time of a verdict is that of its decision
        try:
            # link(2) is the decision: of any number of processes one makes the name, and all read the same verdict.
            os.link(temporary or source, self.verdict)
        except FileExistsError:
            pass
        finally:
            if temporary:
                os.unlink(temporary)
        sync_folder(self.folder)
        return self.read_verdict() or verdict

    def decided_at(self) -> float:
        """The time of the verdict in seconds since the epoch, the same for every caller; 0.0 before the decision."""
        try:
            return max(os.stat(self.verdict).st_mtime, 1.0)
        except FileNotFoundError:
            return 0.0

    # -- records ----------------------------------------------------------------------------------

    def read_exit(self) -> Optional[ExitRecord]:
        return read_message(ExitRecord, self.exit)

    def write_exit(self, report: ExitRecord) -> None:
        """Write the exit report, whole and on disk, the last file of the attempt.

        Written into blocks that `reserve` took in good time, so that a full disk cannot hide the end.
        """
        body = json.dumps(report.to_json(), ensure_ascii=False).encode("utf-8", "surrogateescape")
        with open(self._reserve, "r+b" if os.path.exists(self._reserve) else "wb") as file:
            file.write(body.ljust(RESERVED_BYTES))
            file.truncate(max(len(body), RESERVED_BYTES))
            file.flush()
            os.fsync(file.fileno())
        os.rename(self._reserve, self.exit)
        sync_folder(self.folder)

    def reserve(self) -> None:
        """Take the room for the writes that a full disk must not prevent: both verdicts, a wish to stop, the exit
        report and the last words of the log."""
        bodies = dict.fromkeys((self._reserve, self.stop + ".reserve", self._room), b" " * RESERVED_BYTES)
        bodies.update({"%s.%s" % (self.verdict, each): each.encode("ascii") for each in (STARTED, REFUSED)})
        for path, body in bodies.items():
            with open(path, "wb") as file:
                file.write(body)

    def give_room(self) -> None:
        """Give back the reserved room of the log, for the last words to be written now."""
        try:
            os.unlink(self._room)
        except OSError:
            pass

    def read_stop(self) -> Optional[StopWish]:
        return read_message(StopWish, self.stop)

    def write_stop(self, wish: StopWish) -> None:
        """Leave the wish to stop; on a full disk in the reserved room, and where that room has been used, the earlier
        wish stands."""
        try:
            write_json(self.stop, wish.to_json())
            return
        except OSError:
            mine = "%s.%d.%d" % (self.stop, os.getpid(), time.monotonic_ns())
            try:
                # Of several runners the rename gives the reserved room to one.
                os.rename(self.stop + ".reserve", mine)
            except FileNotFoundError:
                if os.path.exists(self.stop):
                    return
                raise
        with open(mine, "r+b") as file:
            file.write(json.dumps(wish.to_json()).encode("ascii").ljust(RESERVED_BYTES))
            file.flush()
            os.fsync(file.fileno())
        os.rename(mine, self.stop)

    def read_order(self) -> Optional[JobOrder]:
        """The order of `prepare`, of any version of dstack; None before `prepare`."""
        return read_message(JobOrder, self.attempt)

    def log_size(self) -> int:
        try:
            return os.stat(self.log).st_size
        except FileNotFoundError:
            return 0

    def note(self, text: str, *, apart: bool = False) -> None:
        """Add a line of dstack's own to the job's log; a full disk is not an error here. `apart`: the job may be in the
        middle of a line."""
        try:
            fd = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        try:
            os.write(fd, ("%s[dstack] %s\n" % ("\n" * apart, text)).encode("utf-8", "replace"))
        except OSError:
            pass
        finally:
            os.close(fd)

    # -- life -------------------------------------------------------------------------------------

    def lock_alive(self) -> int:
        """Take the lock of a living attempt; returns the descriptor, to be inherited.

        Raises Refusal when another supervisor has the lock. Observers take the lock for an instant, hence the patience.
        """
        fd = os.open(self.alive, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + 2
        while not try_lock(fd, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                os.close(fd)
                raise Refusal("busy", "a supervisor holds attempt %s already" % self.nonce)
            time.sleep(0.01)
        return fd

    def lives(self) -> bool:
        """Whether any process of the attempt (supervisor or job) lives."""
        try:
            fd = os.open(self.alive, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            # Shared, so that two observers do not take one another for a living attempt.
            return not try_lock(fd, fcntl.LOCK_SH)
        finally:
            os.close(fd)

    def state(self) -> str:
        """UNKNOWN (nothing ever ran), HELD, RUNNING, ENDED, or VANISHED (started, no exit report, nothing lives)."""
        if os.path.exists(self.exit):
            return ENDED
        verdict = self.read_verdict()
        if verdict == REFUSED:
            return UNKNOWN
        lives = self.lives()
        if verdict is None:
            # A supervisor may have passed its verdict and even ended between the two looks.
            return HELD if lives else (UNKNOWN if self.read_verdict() != STARTED else self.state())
        if lives:
            return RUNNING
        # Again: the supervisor may have written the report and ended since the first look.
        return ENDED if os.path.exists(self.exit) else VANISHED


def attempts(root: str) -> Iterator[Attempt]:
    """Every attempt in the spool, in no particular order."""
    try:
        names = os.listdir(os.path.join(root, "spool"))
    except FileNotFoundError:
        return
    for name in names:
        if is_nonce(name):
            yield Attempt(root, name)


def try_lock(fd: int, how: int) -> bool:
    """Take a flock without waiting; False when another process has the lock."""
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except OSError as error:
        # EACCES: on NFS a lock of fcntl(2) stands in for flock(2), and may say so of a lock of another process.
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def read_text(path: str) -> Optional[str]:
    """The text of a small file; None without a file."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except FileNotFoundError:
        return None


def read_json(path: str) -> Optional[Dict[str, Any]]:
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read().decode("utf-8", "surrogateescape"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise Refusal("spool", "%s is damaged" % path, _DAMAGED) from None
    return value if isinstance(value, dict) else None


def read_message(cls: Type[M], path: str) -> Optional[M]:
    """A message in a file of any version of dstack, None without a file. Raises Refusal("spool") for a damaged file."""
    value = read_json(path)
    try:
        return None if value is None else cls.from_other_version(value)
    except MisfitError as misfit:
        raise Refusal("spool", "%s is damaged: %s" % (path, misfit), _DAMAGED) from None


def write_json(path: str, value: Dict[str, Any]) -> None:
    """Replace `path` whole; on disk when this returns."""
    # The pid in the name: runners of several coordinators may write at the same time.
    temporary = "%s.%d.tmp" % (path, os.getpid())
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")
    write_durably(temporary, body)
    os.rename(temporary, path)
    sync_folder(os.path.dirname(path))


def write_durably(path: str, body: bytes) -> None:
    with open(path, "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())


def sync_file(path: str) -> None:
    """Bring the written bytes to the disk; raises OSError where the disk does not take the bytes."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(path: str) -> None:
    # fsync(2) of a file leaves out the entry of the file in its folder.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
