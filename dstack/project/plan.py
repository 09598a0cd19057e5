"""The whole project read and checked, and the plan of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dstack.errors import ConfigError, NotFoundError, Problem
from dstack.model import JobSpec, RunPlan, Variable, Workflow, WorkflowName
from dstack.project.graph import WorkflowEdges, check_graph, run_order
from dstack.project.snapshot_parts import CodeParts
from dstack.project.workflows.compiler import CompiledWorkflow, compile_workflow
from dstack.project.workflows.overrides import Overridable, check_overrides
from dstack.project.workflows.variables import GLOBAL_SECTION, VariableTable, check_sections, read_variables
from dstack.project.workflows.workflow_files import WorkflowSource, read_workflows
from dstack.project.yaml.report import Report, quote, suggest


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project without problems. `notes` tell the user about allowed but doubtful things."""

    root: Path
    sources: Mapping[WorkflowName, WorkflowSource]
    table: VariableTable
    compiled: Mapping[WorkflowName, CompiledWorkflow]
    """Every workflow with the defaults of its variables."""
    notes: tuple[Problem, ...] = ()

    @property
    def workflows(self) -> tuple[Workflow, ...]:
        """In the order of the files."""
        return tuple(source.workflow for source in self.sources.values())

    def find_workflow(self, name: str) -> WorkflowName:
        """The workflow called `name`; raises NotFoundError with the nearest name."""
        if name in self.sources:
            return WorkflowName(name)
        listed = ", ".join(self.sources)
        raise NotFoundError(
            f"no workflow is called {quote(name)}{suggest(name, self.sources)}", hint=f"workflows here: {listed}"
        )

    def members(self, workflow: WorkflowName) -> tuple[WorkflowName, ...]:
        """All workflows of a run of `workflow`, each after its dependencies."""
        return run_order(_edges(self.sources), workflow)

    def variables(self, workflow: WorkflowName) -> tuple[Variable, ...]:
        """The variables of a workflow: its own section over `global`, in the order of the file."""
        return self.table.scope(workflow).variables

    def overridable(self, workflow: WorkflowName) -> Overridable:
        """The variables of all workflows of a run of `workflow`; for `--help` and for reading overrides."""
        members = self.members(workflow)
        sections = (GLOBAL_SECTION, *members)
        allowed = [variable for section in sections for variable in self.table.sections.get(section, ())]
        elsewhere = {
            variable.name: section
            for section, variables in self.table.sections.items()
            for variable in variables
            if section not in sections
        }
        return Overridable(workflow=workflow, variables=tuple(allowed), elsewhere=elsewhere)


def load_project(root: Path) -> Project:
    """Read and check all files of `root/.dstack` about workflows.

    Raises ConfigError with all problems of all files. Defaults are checked like values: a default that leads an
    artifact out of the project is a problem.
    """
    report = Report()
    files = read_workflows(report, root)
    table = read_variables(report, root)
    if files.is_whole:
        check_graph(report, _edges(files.sources))
    compiled: dict[WorkflowName, CompiledWorkflow] = {}
    if table is not None:
        if files.is_whole:
            check_sections(report, table, files.sources)
        compiled = {name: compile_workflow(report, it, table.scope(name)) for name, it in files.sources.items()}
        for name, source in files.sources.items():
            _check_secrets(report, source, compiled[name])
    if report.problems:
        raise ConfigError(_unique(report.problems))
    if table is None:
        raise AssertionError("variables.yaml cannot be read and no problem says why")
    sources = {name: _with_resources(source, compiled[name]) for name, source in files.sources.items()}
    return Project(root=root, sources=sources, table=table, compiled=compiled, notes=_unique(report.notes))


def _unique(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(set(problems)))


def _edges(sources: Mapping[WorkflowName, WorkflowSource]) -> WorkflowEdges:
    return {name: source.depends.workflows for name, source in sources.items()}


def _check_secrets(report: Report, source: WorkflowSource, compiled: CompiledWorkflow) -> None:
    name, filled = source.workflow.name, compiled.filled
    for secret in source.workflow.secrets:
        if secret in filled.env or secret in filled.env_from_caller:
            report.problem(source.name.position, f"{name}: {secret} is both in env and a secret; keep one")
        if secret in compiled.scope.names.values():
            report.note(
                source.name.position, f"{name}: secret {secret} hides the variable of that name in the commands"
            )


def _with_resources(source: WorkflowSource, compiled: CompiledWorkflow) -> WorkflowSource:
    """The workflow with the resources and the env for the defaults of its variables."""
    filled = compiled.filled
    workflow = replace(
        source.workflow, resources=filled.resources, env=filled.env, env_from_caller=filled.env_from_caller
    )
    return replace(source, workflow=workflow)


def make_plan(
    project: Project, workflow: str, *, overrides: Mapping[str, str] | None = None, code: CodeParts
) -> RunPlan:
    """The jobs of a run of `workflow` with these values over the defaults.

    `code` is the snapshot. Raises NotFoundError for an unknown workflow, UsageError for an override that does not fit,
    ConfigError for problems with the values or the files.
    """
    target = project.find_workflow(workflow)
    values = check_overrides(project.overridable(target), overrides or {})
    report = Report()
    jobs = tuple(_job(report, project, name, values, code) for name in project.members(target))
    if report.problems:
        raise ConfigError(_unique(report.problems))
    return RunPlan(jobs=jobs, overrides=values)


def check_includes(project: Project, code: CodeParts) -> tuple[Problem, ...]:
    """The `include` entries of all workflows without a matching file of the snapshot."""
    report = Report()
    for source in project.sources.values():
        code.check(report, source.depends.include)
    return _unique(report.problems)


def _job(report: Report, project: Project, name: WorkflowName, values: Mapping[str, str], code: CodeParts) -> JobSpec:
    source, compiled = project.sources[name], project.compiled[name]
    workflow = source.workflow
    scope = project.table.scope(name, values)
    # Most overrides are for one of many workflows: all others stay as they were read.
    if scope != compiled.scope:
        compiled = compile_workflow(report, source, scope)
    filled = compiled.filled
    return JobSpec(
        workflow=name,
        script=compiled.script,
        arguments=scope.arguments(),
        environment=scope.environment(),
        env=filled.env,
        env_from_caller=filled.env_from_caller,
        secrets=workflow.secrets,
        image=filled.image,
        artifacts=filled.artifacts,
        inputs=workflow.depends_on,
        variables=compiled.included,
        code=code.part(report, source.depends.include).digest,
        resources=filled.resources,
        retry=workflow.retry,
        max_duration=workflow.max_duration,
        ports=workflow.ports,
        reuse=workflow.reuse,
        priority=workflow.priority,
    )
