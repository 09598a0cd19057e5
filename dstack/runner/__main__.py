"""Where the bootstrap enters the zipapp."""

from __future__ import annotations

from dstack.runner.serve import serve


def main(first: bytes, stdin: int, stdout: int, root: str) -> None:
    """Serve frames until `stdin` ends; does not return.

    `first` are bytes that were read from the descriptor `stdin` already; answers go to the descriptor `stdout`;
    `root` is the absolute folder on this host under which everything of dstack lies.
    """
    serve(first, stdin, stdout, root)
