"""A workflow with the values of its variables: script, templates, and the variables behind the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dstack.project.workflows.job_script import compile_script
from dstack.project.workflows.templates import FilledTemplates, fill_templates
from dstack.project.workflows.variables import VariableScope, match_name
from dstack.project.workflows.workflow_files import WorkflowSource
from dstack.project.yaml.report import Report, quote, suggest


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledWorkflow:
    """Everything of a workflow that depends on the values in `scope`."""

    scope: VariableScope
    script: str
    filled: FilledTemplates
    included: Mapping[str, str]
    """Name -> text of the variables for the fingerprint of the result."""


def compile_workflow(report: Report, source: WorkflowSource, scope: VariableScope) -> CompiledWorkflow:
    """Put the values of `scope` into a workflow; of use only when there are no problems in `report`."""
    return CompiledWorkflow(
        scope=scope,
        filled=fill_templates(report, source.templates, scope),
        script=compile_script(report, source.commands, scope),
        included=_included_variables(report, source, scope),
    )


def _included_variables(report: Report, source: WorkflowSource, scope: VariableScope) -> dict[str, str]:
    every = {variable.name: variable.text for variable in scope.variables}
    if source.depends.variables is None:
        return every
    found: dict[str, str] = {}
    for entry in source.depends.variables:
        name = match_name(entry.text, every)
        if name is None:
            message = f"{source.workflow.name} has no variable {quote(entry.text)}{suggest(entry.text, every)}"
            report.problem(entry.position, message)
        else:
            found[name] = every[name]
    return found
