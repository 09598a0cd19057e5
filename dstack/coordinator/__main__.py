"""Where the bootstrap enters the zipapp."""

from __future__ import annotations

from dstack.coordinator.server import serve


def main(first: bytes, stdin: int, stdout: int, root: str) -> None:
    """Serve one laptop until `stdin` ends; a coordinator started on the way outlives this process.

    `first` are bytes already read from the descriptor `stdin`; answers go to the descriptor `stdout`; `root` is the
    absolute folder on this host under which everything of dstack lies.
    """
    serve(first, stdin, stdout, root)
