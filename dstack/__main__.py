"""The entry point. `dstack --version` is answered here, before anything else is imported."""

from __future__ import annotations

import sys
from contextlib import suppress

from dstack import __version__

INTERRUPTED_EXIT = 130
"""The same code as in `dstack.cli.main`, which may not be imported yet."""


def main() -> None:
    """Run the command line and exit with its code: after a Ctrl-C at any moment quietly with INTERRUPTED_EXIT."""
    if sys.argv[1:] in (["--version"], ["version"]):
        # Where that fails, the command line says so.
        with suppress(OSError, AttributeError):
            sys.stdout.write(f"dstack {__version__}\n")
            sys.stdout.flush()
            return
    try:
        # Imported here on purpose: the line above answers in the time of a bare interpreter.
        from dstack.cli.main import main as run_cli

        run_cli()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED_EXIT)


if __name__ == "__main__":
    main()
