"""The log of a job with secrets: the output comes by a pipe, and is masked before any byte reaches the disk."""

from __future__ import annotations

import fcntl
import os
from typing import Iterable, Optional

from dstack.runner.base import disk_room
from dstack.runner.base.spool import Attempt
from dstack.runner.executors.executor import LogPipe
from dstack.runner.job.masking import Masker
from dstack.wire import CHUNK_BYTES

PIPE_BYTES = 1 << 20
"""Size of the pipe where the system allows so much: a job need not wait for the supervisor to wake."""
# fcntl.F_SETPIPE_SZ, which Python names from 3.10 on.
_F_SETPIPE_SZ = 1031
MAX_WAITING_BYTES = 1 << 20
"""Bytes of the log that may wait in memory for room on the disk; the log is cut behind them."""


class MaskedLog:
    """The reading end of `pipe`; the job's end of an inherited pipe is closed by `started`.

    No method waits for the disk: bytes without room on the disk stay in memory, at most MAX_WAITING_BYTES. When there
    are more, the log is cut and the pipe is closed: the next write of the job fails, as on a full disk without secrets.
    `loss` says in words how much of the log is missing for good, "" for nothing; a last line of the log says the same
    as soon as the disk has room.
    """

    def __init__(self, attempt: Attempt, patterns: Iterable[bytes], pipe: LogPipe) -> None:
        self.loss = ""
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
            fcntl.fcntl(pipe.reader, _F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            pass  # another system, or a limit for this user: the usual size does too

    def close_job_end(self) -> None:
        """Close the job's end of an inherited pipe, once the job has a copy or failed to start."""
        if self._writer is not None:
            os.close(self._writer)
            self._writer = None

    def pump(self) -> bool:
        """Carry at most CHUNK bytes from the pipe into the log; False when the pipe was empty."""
        if self.reader is None:
            return False
        try:
            data = os.read(self.reader, CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._hang_up()
            return False
        self._write(self._masker.feed(data))
        return True

    def drain(self) -> None:
        """Carry everything that the job wrote before the call."""
        # A bound: a job that prints without a pause would never leave the pipe empty.
        for _ in range(2 * PIPE_BYTES // CHUNK_BYTES + 1):
            if not self.pump():
                return

    def finish(self) -> None:
        """Carry the rest and close everything; call when no process of the job is left."""
        self.close_job_end()
        self.drain()
        self._hang_up()
        if self._log < 0:
            return
        self._write(self._masker.finish())
        self.flush()
        if self._waiting or self._last_words:
            self._cut(0)
            # The line that says what is missing matters most: room on the disk was reserved for this line.
            self._attempt.give_room()
            self.flush()
        os.close(self._log)
        self._log = -1

    def note(self, text: str) -> None:
        """Add a line of dstack's own, behind all output of the job so far."""
        self.drain()
        self._write(("[dstack] %s\n" % text).encode("utf-8", "replace"))

    def flush(self) -> None:
        """Write the waiting bytes, as far as the disk has room."""
        if self._log < 0:
            return
        try:
            while self._waiting:
                del self._waiting[: os.write(self._log, self._waiting[:CHUNK_BYTES])]
            while self._last_words:
                self._last_words = self._last_words[os.write(self._log, self._last_words) :]
        except OSError as error:
            self._why = disk_room.DISK_FULL if disk_room.is_no_room(error) else str(error.strerror)

    def _hang_up(self) -> None:
        if self.reader is not None:
            os.close(self.reader)
            self.reader = None
        if self._path is not None:
            try:
                os.unlink(self._path)
            except OSError:
                # A pipe that stays goes with the folder of the attempt.
                pass
            self._path = None

    def _write(self, data: bytes) -> None:
        if self.loss:
            return
        self._waiting += data
        self.flush()
        if len(self._waiting) > MAX_WAITING_BYTES:
            self._cut(MAX_WAITING_BYTES)

    def _cut(self, length: int) -> None:
        """Keep `length` of the waiting bytes, drop all others and every later one, and say so in `loss`."""
        self._missing += len(self._waiting) - length
        del self._waiting[length:]
        # A bound, as in `drain`.
        for _ in range(2 * PIPE_BYTES // CHUNK_BYTES + 1):
            self._missing += len(self._rest())
        self._hang_up()
        self.loss = "%d bytes of the log could not be written, and none after them: %s" % (self._missing, self._why)
        self._last_words = ("\n[dstack] the log is cut here: %s\n" % self.loss).encode("utf-8", "replace")

    def _rest(self) -> bytes:
        """Up to CHUNK bytes that still lie in the pipe."""
        try:
            return os.read(self.reader, CHUNK_BYTES) if self.reader is not None else b""
        except BlockingIOError:
            return b""
