"""The entry of the zipapp for the bootstrap."""

from __future__ import annotations

from dstack.runner.serve import serve


def main(first: bytes, stdin: int, stdout: int, root: str) -> None:
    """Serve frames until `stdin` ends; does not return.

    `first` are bytes already read from the descriptor `stdin`; answers go to the descriptor `stdout`; `root` is
    dstack's own folder on this host, an absolute path.
    """
    serve(first, stdin, stdout, root)
