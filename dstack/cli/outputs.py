"""Standard output and error of this process: which failures are theirs, and what stands in for one that is closed."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from dstack.errors import OutputError


class Watched(io.FileIO):
    """A descriptor that remembers the last failure to write to it: any other OSError is somebody else's."""

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


def watch() -> None:
    """Take over the standard streams. To be called once, before anything is written.

    A closed standard output is replaced by a descriptor that nothing can be written to, so that no file that is opened
    later gets the output; closed standard input and error are those of /dev/null.
    """
    for number, access in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            _open_null(number, access)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  the stream of the whole process
    sys.stdout, sys.stderr = _watched(sys.stdout, 1), _watched(sys.stderr, 2)


def _open_null(number: int, access: int) -> None:
    null = os.open(os.devnull, access)
    os.dup2(null, number)
    if null != number:
        os.close(null)


def _watched(stream: TextIO | None, number: int) -> TextIO:
    """A stream on a watched descriptor that behaves as `stream`, which is None where the descriptor was closed."""
    raw = Watched(number, "w", closefd=False)
    if not isinstance(stream, io.TextIOWrapper):
        return io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "backslashreplace", line_buffering=number == 2)
    stream.flush()
    return io.TextIOWrapper(
        raw if stream.write_through else io.BufferedWriter(raw),
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def output_error(error: OSError) -> OutputError | None:
    """The failure as an error for people where it is one of standard output or error; None where it is another's."""
    for stream, name in ((sys.stdout, "output"), (sys.stderr, "error")):
        buffer = getattr(stream, "buffer", None)
        raw = getattr(buffer, "raw", buffer)
        if isinstance(raw, Watched) and raw.failure is error:
            hint = "make room where it is written to, or give it another place"
            return OutputError(f"standard {name} cannot be written: {error.strerror}", hint=hint)
    return None


def flush() -> None:
    """Write what is left for standard output; where that fails, nothing more is written there, and nothing is said: the
    interpreter would complain at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        discard()


def discard() -> None:
    """Let standard output go nowhere from now on."""
    _open_null(1, os.O_WRONLY)
    with suppress(OSError):
        sys.stdout.flush()
