"""Arguments shared by several commands."""

from __future__ import annotations

import typer

RUN = typer.Argument(
    metavar="[RUN]",
    help="Name of a run, or its beginning; without it, or as `-`: your own last run on this machine.",
    show_default=False,
)
THE_RUN = typer.Argument(
    metavar="RUN", help="Name of a run, or its beginning; `-`: your own last run on this machine.", show_default=False
)
WORKFLOW = typer.Argument(metavar="[WORKFLOW]", help="One workflow of the run; without it, all.", show_default=False)
HOSTS = typer.Option("--hosts", metavar="FILE", help="Inventory to use instead of the usual ones.", show_default=False)
