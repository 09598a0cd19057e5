"""Arguments shared by several commands."""

from __future__ import annotations

import typer

RUN_ARGUMENT = typer.Argument(
    metavar="[RUN]",
    help="Name of a run, or its beginning; without it, or as `-`: your own last run on this machine.",
    show_default=False,
)
REQUIRED_RUN_ARGUMENT = typer.Argument(
    metavar="RUN", help="Name of a run, or its beginning; `-`: your own last run on this machine.", show_default=False
)
WORKFLOW_ARGUMENT = typer.Argument(
    metavar="[WORKFLOW]", help="One workflow of the run; without it, all.", show_default=False
)
HOSTS_OPTION = typer.Option(
    "--hosts", metavar="FILE", help="Inventory to use instead of the usual ones.", show_default=False
)
UNASKED_OPTION = typer.Option("--yes", help="Without asking.")
HOST_NAME_ARGUMENT = typer.Argument(metavar="NAME", help="Name of the host.", show_default=False)
PROJECT_FILE_OPTION = typer.Option(
    "--project", help="In the project's .dstack/hosts.yaml, not in ~/.dstack/hosts.yaml."
)
SECRET_NAME_ARGUMENT = typer.Argument(
    metavar="NAME", help="What the job calls it: an environment variable.", show_default=False
)
ALL_PROJECTS_OPTION = typer.Option("--global", help="For all projects; what is set for a project comes first.")
