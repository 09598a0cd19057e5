"""The entry point. `dstack --version` is answered here, before anything else is imported."""

from __future__ import annotations

import sys

from dstack import __version__


def main() -> None:
    """Run the command line and exit with its code."""
    if sys.argv[1:] in (["--version"], ["version"]):
        sys.stdout.write(f"dstack {__version__}\n")
        return
    # Imported here on purpose: the line above answers in the time of a bare interpreter.
    from dstack.cli.main import main as run_cli

    run_cli()


if __name__ == "__main__":
    main()
