"""`dstack run --help`: the workflows; `dstack run W --help`: the variables and their defaults."""

from __future__ import annotations

import sys

from dstack.project.planning import Project
from dstack.ui.tables import Column, table

OPTIONS = """Options:
  --dry-run           Print what would happen; touch nothing.
  -d, --detach        Leave the run to the background of this machine.
  --rerun[=WORKFLOW]  Run the asked-for workflow, or another one of the run, even
                      when it has a result.
  --var NAME=VALUE    Set a variable, whatever its name.
  --hosts FILE        Inventory to use instead of the usual ones.
  --json              Print the run as one JSON object when it has ended.
  -h, --help          Show this help; after a workflow, its variables."""


def run_help(project: Project) -> str:
    """What can be run here."""
    rows = [(workflow.name, workflow.help or "-") for workflow in project.workflows]
    columns = (Column(title="WORKFLOW", floor=12), Column(title="WHAT IT DOES", floor=20))
    return "\n".join(
        [
            "Usage: dstack run WORKFLOW [--VARIABLE VALUE]... [OPTIONS]",
            "",
            "Run a workflow and all that it depends on. What already ran with the same",
            "code, variables and inputs is reused.",
            "",
            table(columns, rows, sys.stdout),
            OPTIONS,
            "",
            "`dstack run WORKFLOW --help` lists the variables. Example:",
            f"  dstack run {project.workflows[-1].name if project.workflows else 'train'} --dry-run",
        ]
    )


def workflow_help(project: Project, name: str) -> str:
    """The variables that a run of this workflow takes, of all its workflows. Raises NotFoundError."""
    target = project.named(name)
    chosen = next(workflow for workflow in project.workflows if workflow.name == target)
    rows = []
    for member in reversed(project.members(target)):
        for variable in project.variables(member):
            row = (f"--{variable.name}", variable.type.value, variable.text or '""')
            if all(row[0] != known[0] for known in rows):
                rows.append((*row, member))
    columns = (
        Column(title="VARIABLE", floor=12),
        Column(title="TYPE"),
        Column(title="DEFAULT", floor=10),
        Column(title="OF"),
    )
    lines = [f"Usage: dstack run {name} [--VARIABLE VALUE]... [OPTIONS]", ""]
    if chosen.help:
        lines += [chosen.help, ""]
    order = " → ".join(project.members(target))
    lines += [f"Runs {order}", ""] if len(project.members(target)) > 1 else []
    lines += [table(columns, rows, sys.stdout) if rows else "It takes no variables.\n"]
    return "\n".join([*lines, OPTIONS])
