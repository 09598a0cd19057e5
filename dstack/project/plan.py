"""The whole project read and checked, and the plan of one run made of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dstack.core.fingerprint import code_digest
from dstack.errors import ConfigError, NotFoundError, Problem
from dstack.model import CodeFile, JobSpec, RunPlan, Variable, Workflow, WorkflowName
from dstack.project.graph import Edges, check_graph, run_order
from dstack.project.paths import matching
from dstack.project.workflows.overrides import Overridable, check_overrides
from dstack.project.workflows.script import compile_script
from dstack.project.workflows.templates import Settled, settle
from dstack.project.workflows.variables import GLOBAL, Scope, VariableTable, check_sections, match, read_variables
from dstack.project.workflows.workflow_files import WorkflowSource, read_workflows
from dstack.project.yaml.report import Report, nearest, quoted


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project without problems. `notes` are what the user may want to know all the same."""

    root: Path
    sources: Mapping[WorkflowName, WorkflowSource]
    table: VariableTable
    notes: tuple[Problem, ...] = ()

    @property
    def workflows(self) -> tuple[Workflow, ...]:
        """In the order of the files."""
        return tuple(source.workflow for source in self.sources.values())

    def named(self, name: str) -> WorkflowName:
        """The workflow called `name`; raises NotFoundError with the nearest name."""
        if name in self.sources:
            return WorkflowName(name)
        listed = ", ".join(self.sources)
        raise NotFoundError(
            f"no workflow is called {quoted(name)}{nearest(name, self.sources)}", hint=f"workflows here: {listed}"
        )

    def members(self, workflow: WorkflowName) -> tuple[WorkflowName, ...]:
        """All workflows of a run of `workflow`, each after what it depends on."""
        return run_order(_edges(self.sources), workflow)

    def variables(self, workflow: WorkflowName) -> tuple[Variable, ...]:
        """What one workflow sees: its own section over `global`, in the order of the file."""
        return self.table.scope(workflow).variables

    def overridable(self, workflow: WorkflowName) -> Overridable:
        """The variables of all workflows of a run of `workflow`; for `--help` and for reading overrides."""
        members = self.members(workflow)
        sections = (GLOBAL, *members)
        allowed = [variable for section in sections for variable in self.table.sections.get(section, ())]
        elsewhere = {
            variable.name: section
            for section, variables in self.table.sections.items()
            for variable in variables
            if section not in sections
        }
        return Overridable(workflow=workflow, variables=tuple(allowed), elsewhere=elsewhere)


def load_project(root: Path) -> Project:
    """Read and check everything under `root/.dstack` that says what can be run.

    Raises ConfigError with all problems of all files. Defaults are checked as values are: a default that leads an
    artifact out of the project is a problem.
    """
    report = Report()
    files = read_workflows(report, root)
    table = read_variables(report, root)
    if files.whole:
        check_graph(report, _edges(files.sources))
    sources: dict[WorkflowName, WorkflowSource] = {}
    if table is not None:
        if files.whole:
            check_sections(report, table, files.sources)
        sources = {name: _checked(report, source, table) for name, source in files.sources.items()}
    if report.problems:
        raise ConfigError(_unique(report.problems))
    if table is None:
        raise AssertionError("variables.yaml cannot be read and no problem says why")
    return Project(root=root, sources=sources, table=table, notes=_unique(report.notes))


def _unique(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(set(problems)))


def _edges(sources: Mapping[WorkflowName, WorkflowSource]) -> Edges:
    return {name: source.depends.workflows for name, source in sources.items()}


def _checked(report: Report, source: WorkflowSource, table: VariableTable) -> WorkflowSource:
    """Check a workflow with the defaults of its variables; its resources are known from here on."""
    name = source.workflow.name
    scope = table.scope(name)
    settled = settle(report, source.declared, scope)
    compile_script(report, source.commands, scope)
    _included_variables(report, source, scope)
    for secret in source.workflow.secrets:
        if secret in settled.env or secret in settled.env_from_caller:
            report.problem(source.name.position, f"{name}: {secret} is both in env and a secret; keep one")
        if secret in scope.names.values():
            report.note(
                source.name.position, f"{name}: secret {secret} hides the variable of that name in the commands"
            )
    workflow = replace(
        source.workflow, resources=settled.resources, env=settled.env, env_from_caller=settled.env_from_caller
    )
    return replace(source, workflow=workflow)


def _included_variables(report: Report, source: WorkflowSource, scope: Scope) -> dict[str, str]:
    """Name -> text of the variables that the result depends on."""
    every = {variable.name: variable.text for variable in scope.variables}
    if source.depends.variables is None:
        return every
    found: dict[str, str] = {}
    for entry in source.depends.variables:
        name = match(entry.text, every)
        if name is None:
            message = f"{source.workflow.name} has no variable {quoted(entry.text)}{nearest(entry.text, every)}"
            report.problem(entry.position, message)
        else:
            found[name] = every[name]
    return found


def make_plan(
    project: Project, workflow: str, *, overrides: Mapping[str, str] | None = None, files: Sequence[CodeFile]
) -> RunPlan:
    """The jobs of a run of `workflow` with these values over the defaults.

    `files` are all files of the snapshot below the project folder. Raises NotFoundError for an unknown workflow,
    UsageError for an override that does not fit, ConfigError for what the values or the files make wrong.
    """
    target = project.named(workflow)
    given = check_overrides(project.overridable(target), overrides or {})
    report = Report()
    jobs = tuple(_job(report, project, name, given, files) for name in project.members(target))
    if report.problems:
        raise ConfigError(_unique(report.problems))
    return RunPlan(jobs=jobs, overrides=given)


def check_includes(project: Project, files: Sequence[CodeFile]) -> tuple[Problem, ...]:
    """The `include` entries of any workflow that match none of `files`."""
    report = Report()
    for source in project.sources.values():
        _included_files(report, source, files)
    return _unique(report.problems)


def included_files(project: Project, workflow: WorkflowName, files: Sequence[CodeFile]) -> list[CodeFile]:
    """Those of `files` that the result of the workflow depends on."""
    return _included_files(Report(), project.sources[workflow], files)


def _job(
    report: Report, project: Project, name: WorkflowName, given: Mapping[str, str], files: Sequence[CodeFile]
) -> JobSpec:
    source = project.sources[name]
    workflow = source.workflow
    scope = project.table.scope(name, given)
    settled: Settled = settle(report, source.declared, scope)
    return JobSpec(
        workflow=name,
        script=compile_script(report, source.commands, scope),
        arguments=scope.arguments(),
        environment=scope.environment(),
        env=settled.env,
        env_from_caller=settled.env_from_caller,
        secrets=workflow.secrets,
        image=settled.image,
        artifacts=settled.artifacts,
        inputs=workflow.depends_on,
        variables=_included_variables(report, source, scope),
        code=code_digest(_included_files(report, source, files)),
        resources=settled.resources,
        retry=workflow.retry,
        max_duration=workflow.max_duration,
        ports=workflow.ports,
        reuse=workflow.reuse,
        priority=workflow.priority,
    )


def _included_files(report: Report, source: WorkflowSource, files: Sequence[CodeFile]) -> list[CodeFile]:
    """The files that the result depends on; by default all but those of dstack itself."""
    if source.depends.include is None:
        return [file for file in files if not file.path.startswith(".dstack/")]
    paths = [file.path for file in files]
    wanted: set[str] = set()
    for entry in source.depends.include:
        found = matching(entry.text, paths)
        if not found:
            advice = nearest(entry.text, paths)
            report.problem(entry.position, f"include {quoted(entry.text)} matches no file of the project{advice}")
        wanted.update(found)
    return [file for file in files if file.path in wanted]
