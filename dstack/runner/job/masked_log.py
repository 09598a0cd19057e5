"""The log of a job that was given secrets: what it says comes by a pipe, and is masked before it is on the disk."""

from __future__ import annotations

import fcntl
import os
from typing import Iterable, Optional

from dstack.runner.base import disk_room
from dstack.runner.base.spool import Attempt
from dstack.runner.executors.executor import LogPipe
from dstack.runner.job.masking import Masker
from dstack.wire import CHUNK

ROOM = 1 << 20
"""Bytes that the pipe takes where the system allows it: a job need not wait for its supervisor to wake."""
_F_SETPIPE_SZ = 1031
KEPT = 1 << 20
"""Bytes of the log that wait in memory for room on the disk; when there are more, the log is cut."""


class MaskedLog:
    """The reading end of `pipe`; the job's end of an inherited pipe is closed by `started`.

    Nothing here waits for the disk: what it does not take is kept, at most KEPT bytes, until it does. Beyond them the
    log is cut and the pipe is closed: the job's next write then fails, as it fails without secrets. `lost` says what of
    the log is missing for good, "" for nothing; a line of the log says so in its place as soon as there is room.
    """

    def __init__(self, attempt: Attempt, patterns: Iterable[bytes], pipe: LogPipe) -> None:
        self.lost = ""
        self._masker = Masker(patterns)
        self._waiting = bytearray()
        self._why = ""
        self._missing = 0
        self._last_words = b""
        self._attempt = attempt
        self.pipe = pipe
        self.reader: Optional[int] = pipe.reader
        self._writer = pipe.writer
        self._path = pipe.path
        self._log = os.open(attempt.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.fcntl(pipe.reader, _F_SETPIPE_SZ, ROOM)
        except OSError:
            pass  # another system, or a limit for this user: the usual size does too

    def started(self) -> None:
        """The job has its end of the pipe, or never will."""
        if self._writer is not None:
            os.close(self._writer)
            self._writer = None

    def pump(self) -> bool:
        """Carry what is there, at most CHUNK bytes; False when nothing was."""
        if self.reader is None:
            return False
        try:
            data = os.read(self.reader, CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._hang_up()
            return False
        self._write(self._masker.feed(data))
        return True

    def drain(self) -> None:
        """Carry all that was written before this call."""
        for _ in range(2 * ROOM // CHUNK + 1):
            if not self.pump():
                return

    def finish(self) -> None:
        """Carry the rest and close everything; for when nothing of the job is left."""
        self.started()
        self.drain()
        self._hang_up()
        if self._log < 0:
            return
        self._write(self._masker.finish())
        self.flush()
        if self._waiting or self._last_words:
            self._cut(0)
            # Of all that is missing the last words matter most, and need the room that was kept for them.
            self._attempt.give_room()
            self.flush()
        os.close(self._log)
        self._log = -1

    def note(self, text: str) -> None:
        """A line of dstack's own, after all that the job has said."""
        self.drain()
        self._write(("[dstack] %s\n" % text).encode("utf-8", "replace"))

    def flush(self) -> None:
        """Write what waits, as far as there is room."""
        if self._log < 0:
            return
        try:
            while self._waiting:
                del self._waiting[: os.write(self._log, self._waiting[:CHUNK])]
            while self._last_words:
                self._last_words = self._last_words[os.write(self._log, self._last_words) :]
        except OSError as error:
            self._why = disk_room.FULL if disk_room.is_lack(error) else str(error.strerror)

    def _hang_up(self) -> None:
        if self.reader is not None:
            os.close(self.reader)
            self.reader = None
        if self._path is not None:
            try:
                os.unlink(self._path)
            except OSError:
                pass
            self._path = None

    def _write(self, data: bytes) -> None:
        if self.lost:
            return
        self._waiting += data
        self.flush()
        if len(self._waiting) > KEPT:
            self._cut(KEPT)

    def _cut(self, kept: int) -> None:
        """Keep so many of the bytes that wait; all that comes after them is missing, and said to be."""
        self._missing += len(self._waiting) - kept
        del self._waiting[kept:]
        for _ in range(2 * ROOM // CHUNK + 1):
            self._missing += len(self._rest())
        self._hang_up()
        self.lost = "%d bytes of the log could not be written, and none after them: %s" % (self._missing, self._why)
        self._last_words = ("\n[dstack] the log is cut here: %s\n" % self.lost).encode("utf-8", "replace")

    def _rest(self) -> bytes:
        """What the job has said and nobody has taken yet."""
        try:
            return os.read(self.reader, CHUNK) if self.reader is not None else b""
        except BlockingIOError:
            return b""
