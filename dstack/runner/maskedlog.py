"""The log of a job that was given secrets: what it says comes by a pipe, and is masked before it is on the disk."""

from __future__ import annotations

import fcntl
import os
from typing import Iterable, Optional

from dstack.private_folder import make_folder
from dstack.runner.masking import Masker
from dstack.runner.spool import Attempt
from dstack.wire import CHUNK

ROOM = 1 << 20
"""Bytes that the pipe takes where the system allows it: a job need not wait for its supervisor to wake."""
_F_SETPIPE_SZ = 1031
FIFO = "output"
"""The pipe's name in the attempt's container folder, for a job in a container."""


def fifo(attempt: Attempt) -> str:
    """The path of the pipe that a container writes to; it lies in a folder that is mounted there."""
    return os.path.join(attempt.container, FIFO)


class MaskedLog:
    """The reading end. `writer` is for the job, to be closed by `started`; a container opens `fifo` instead.

    Nothing here waits but for the disk. When the log cannot be written any more the pipe is closed: the job's next
    write then fails, as it fails without secrets.
    """

    def __init__(self, attempt: Attempt, patterns: Iterable[bytes], *, contained: bool) -> None:
        self._masker = Masker(patterns)
        self._fifo: Optional[str] = fifo(attempt) if contained else None
        self.writer: Optional[int] = None
        self._log = os.open(attempt.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if self._fifo is not None:
            make_folder(attempt.container)
            os.mkfifo(self._fifo, 0o600)
            # For both ways: then it has no end before its last reader closes it, whoever comes and goes inside.
            self.reader: Optional[int] = os.open(self._fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        else:
            self.reader, self.writer = os.pipe()
            os.set_blocking(self.reader, False)
        try:
            fcntl.fcntl(self.reader, _F_SETPIPE_SZ, ROOM)
        except OSError:
            pass  # another system, or a limit for this user: the usual size does too

    def started(self) -> None:
        """The job has its end of the pipe, or never will."""
        if self.writer is not None:
            os.close(self.writer)
            self.writer = None

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
        if self._log >= 0:
            self._write(self._masker.finish())
        if self._log >= 0:
            os.close(self._log)
            self._log = -1

    def _hang_up(self) -> None:
        if self.reader is not None:
            os.close(self.reader)
            self.reader = None
        if self._fifo is not None:
            try:
                os.unlink(self._fifo)
            except OSError:
                pass
            self._fifo = None

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._log, view) :]
        except OSError:
            self._hang_up()
            os.close(self._log)
            self._log = -1
