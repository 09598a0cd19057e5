"""Standard output and error of this process: their failures, and a stand-in for a closed stream."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from dstack.errors import OutputError


class RecordingFileIO(io.FileIO):
    """A descriptor with a memory of the last failed write, to tell failures of output from every other OSError."""

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


def take_over_streams() -> None:
    """Take over the standard streams. To be called once, before anything is written.

    A closed standard output is replaced by a descriptor without write access, so that no later opened file gets the
    output; closed standard input and error are replaced by /dev/null.
    """
    for number, access in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            _open_null(number, access)
    # Python leaves None for a descriptor that was closed at the start.
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  the stream of the whole process
    sys.stdout, sys.stderr = _recording(sys.stdout, 1), _recording(sys.stderr, 2)


def _open_null(number: int, access: int) -> None:
    null = os.open(os.devnull, access)
    os.dup2(null, number)
    if null != number:
        os.close(null)


def _recording(stream: TextIO | None, number: int) -> TextIO:
    """A stream like `stream` on a recording descriptor; `stream` is None where the descriptor was closed."""
    raw = RecordingFileIO(number, "w", closefd=False)
    if not isinstance(stream, io.TextIOWrapper):
        return io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "backslashreplace", line_buffering=number == 2)
    stream.flush()
    return io.TextIOWrapper(
        # Without a buffer for `python -u`.
        raw if stream.write_through else io.BufferedWriter(raw),
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def output_error(error: OSError) -> OutputError | None:
    """An error for people about a failure of standard output or error; None for every other failure."""
    for stream, name in ((sys.stdout, "output"), (sys.stderr, "error")):
        buffer = getattr(stream, "buffer", None)
        raw = getattr(buffer, "raw", buffer)
        if isinstance(raw, RecordingFileIO) and raw.failure is error:
            hint = "make room where it is written to, or give it another place"
            return OutputError(f"standard {name} cannot be written: {error.strerror}", hint=hint)
    return None


def flush() -> None:
    """Write the rest for standard output; after a failure standard output goes nowhere, without a message, because the
    interpreter would complain at the end of the process."""
    try:
        sys.stdout.flush()
    except OSError:
        discard()


def discard() -> None:
    """Let standard output go nowhere from now on."""
    _open_null(1, os.O_WRONLY)
    with suppress(OSError):
        sys.stdout.flush()
