"""`dstack run --help`: the workflows of this project. `dstack run WORKFLOW --help`: the variables of a workflow, with
defaults."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from dstack.model import Variable, Workflow
from dstack.project.plan import Project
from dstack.ui.tables import Column, table_lines
from dstack.ui.terminal import clean

_INTRO = """\
Usage: dstack run WORKFLOW [OPTIONS] [--VARIABLE VALUE]...

  Run a workflow and all that it depends on. What already ran with the same
  code, variables and inputs is reused."""
_OPTIONS = """\
Options:
  -d, --detach       Leave the run to the hosts that see the bucket, else to the
                     background of this machine.
  --dry-run          Print what would run and what would be reused, and whether
                     the hosts can run it; do nothing.
  --offline          With --dry-run: ask no host.
  --rerun[=NAME]     Run the workflow (or workflow NAME of the run) again even
                     where there is a result.
  --var NAME=VALUE   Set a variable; needed where it has the name of an option.
  --hosts FILE       Inventory to use instead of the usual ones.
  --json             Print the run as one JSON object when it has ended.
  -h, --help         Show this message, or the variables of WORKFLOW."""
_EXAMPLES = """\
Examples:
  dstack run {name}
  dstack run {name} --dry-run
  dstack run {name} -d
{override}
Ctrl-C detaches; the run goes on, and `dstack attach RUN` comes back to it."""
HELP_INDENT = "  "


def run_help(project: Project) -> str:
    """Options of `dstack run` and the workflows of the project; no newline at the end."""
    workflows = project.workflows
    rows = [(workflow.name, _about(workflow)) for workflow in workflows]
    listed = (
        _listed(("WORKFLOW", "ABOUT"), rows) if rows else [HELP_INDENT + "none yet: .dstack/workflows.yaml has none"]
    )
    name = workflows[-1].name if workflows else "WORKFLOW"
    variables = project.variables(workflows[-1].name) if workflows else ()
    examples = _EXAMPLES.format(name=name, override=_override(name, variables))
    more = "`dstack run WORKFLOW --help` lists the variables of a workflow."
    return "\n".join([_INTRO, "", "Workflows:", *listed, "", _OPTIONS, "", examples, more])


def workflow_help(project: Project, name: str) -> str:
    """The help of the workflow `name`: description and variables; raises NotFoundError for an unknown workflow."""
    chosen = project.find_workflow(name)
    workflow = next(workflow for workflow in project.workflows if workflow.name == chosen)
    runs = project.members(chosen)
    lines = [f"Usage: dstack run {chosen} [OPTIONS] [--VARIABLE VALUE]...", ""]
    if workflow.help:
        lines += [f"{HELP_INDENT}{clean(workflow.help)}", ""]
    if len(runs) > 1:
        lines += [f"{HELP_INDENT}Runs or reuses, in this order: {', '.join(runs)}", ""]
    variables = project.overridable(chosen).variables
    rows = [(f"--{variable.name}", variable.type.value, variable.text, _place(variable)) for variable in variables]
    listed = _listed(("VARIABLE", "TYPE", "DEFAULT", "FROM"), rows) if rows else [f"{HELP_INDENT}none"]
    examples = _EXAMPLES.format(name=chosen, override=_override(chosen, variables))
    return "\n".join([*lines, "Variables:", *listed, "", _OPTIONS, "", examples])


def _about(workflow: Workflow) -> str:
    if workflow.help:
        return workflow.help
    needs = ", ".join(dependency.workflow for dependency in workflow.depends_on)
    return f"needs {needs}" if needs else ""


def _override(name: str, variables: tuple[Variable, ...]) -> str:
    return f"{HELP_INDENT}dstack run {name} --{variables[-1].name} {variables[-1].text}\n" if variables else ""


def _place(variable: Variable) -> str:
    return f"{variable.position.file}:{variable.position.line}"


def _listed(titles: tuple[str, ...], rows: Sequence[Sequence[str]]) -> list[str]:
    width = shutil.get_terminal_size().columns - len(HELP_INDENT)
    columns = [Column(title=title, floor=8) for title in titles]
    return [HELP_INDENT + line for line in table_lines(columns, rows, width=width)]
