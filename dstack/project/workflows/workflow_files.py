"""`.dstack/workflows.yaml` and every `.dstack/workflows/*.yaml`: nodes -> workflows, all problems collected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dstack.model import Position, Retry, Workflow, WorkflowName
from dstack.project.names import read_workflow_name
from dstack.project.quantities import read_duration
from dstack.project.workflows.commands import python_image, read_commands, working_dir
from dstack.project.workflows.dependencies import DependsOn, read_depends
from dstack.project.workflows.retry import read_retry
from dstack.project.workflows.templates import WorkflowTemplates, artifact_texts, read_names
from dstack.project.yaml.parser import MapNode, Node, ScalarNode, load_yaml
from dstack.project.yaml.report import (
    MapEntry,
    Report,
    is_absent,
    quote,
    read_boolean,
    read_fields,
    read_integer,
    read_list,
    read_map,
    read_text,
    suggest,
)
from dstack.project.yaml.schema import WORKFLOW_KEYS, spellings

WORKFLOWS_FILE = ".dstack/workflows.yaml"
WORKFLOWS_FOLDER = ".dstack/workflows"

_KNOWN = spellings(WORKFLOW_KEYS)
UNSUPPORTED_KEYS = {
    "cache": "caches between runs are not supported; keep what is expensive as an artifact of a workflow of its own",
    "nodes": "one job runs on one host; several nodes are not supported",
    "template": 'not supported; write its keys straight under "- name"',
    "triggers": "not supported; what a workflow depends on stands under depends-on",
    "target": "belongs to a provider that is not supported; write what it starts as commands",
    "url": "belongs to a provider that is not supported; write what it starts as commands",
    "output": "belongs to a provider that is not supported; write what it starts as commands",
    "matrix": "sweeps are not supported; start a run for each value",
    "schedule": "not supported; let cron start `dstack run -d`",
    "id": "is now called name",
    "params": "not supported; defaults stand in .dstack/variables.yaml",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowSource:
    """A workflow with the nodes to read again for each set of values. `workflow` has the texts of the file; `plan`
    fills in `workflow.resources`."""

    workflow: Workflow
    name: ScalarNode
    commands: tuple[ScalarNode, ...]
    templates: WorkflowTemplates
    depends: DependsOn


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowFiles:
    """All workflows in the order of the files. `is_whole` is false after an unreadable file: a missing name may be in
    there."""

    sources: Mapping[WorkflowName, WorkflowSource]
    is_whole: bool


def read_workflows(report: Report, root: Path) -> WorkflowFiles:
    """Read every workflow of the project at `root`; problems go to `report`."""
    sources: dict[WorkflowName, WorkflowSource] = {}
    lowered: dict[str, ScalarNode] = {}
    is_whole = True
    files = _files(root)
    for path in files:
        loaded = load_yaml(path, path.relative_to(root).as_posix())
        node = report.take(loaded)
        items = None if node is None else _items(report, node)
        is_whole = is_whole and items is not None
        for item in items or ():
            source = _read_item(report, item)
            if source is None:
                is_whole = False
                continue
            first = lowered.setdefault(source.name.text.lower(), source.name)
            if first is source.name:
                sources[source.workflow.name] = source
            else:
                _refuse_duplicate(report, source.name, first)
    if is_whole and not sources:
        shown = files[0].relative_to(root).as_posix() if files else WORKFLOWS_FILE
        place = Position(file=shown, line=1, column=1)
        report.problem(place, "no workflows are defined here; `dstack init` writes an example")
    return WorkflowFiles(sources=sources, is_whole=is_whole)


def _files(root: Path) -> list[Path]:
    folder = root / WORKFLOWS_FOLDER
    more = sorted(path for path in folder.glob("*") if path.suffix in (".yaml", ".yml")) if folder.is_dir() else []
    return [
        path for path in (root / WORKFLOWS_FILE, (root / WORKFLOWS_FILE).with_suffix(".yml")) if path.exists()
    ] + more


def _items(report: Report, node: Node) -> tuple[Node, ...] | None:
    """The entries under the root key `workflows:`; None without the key."""
    if is_absent(node):
        return ()
    top = read_map(report, node, "the file")
    if top is None:
        return None
    for key, _ in top.entries:
        if key.text != "workflows":
            advice = suggest(key.text, ["workflows"]) or '; workflows stand under "workflows:"'
            report.problem(key.position, f"unknown key {quote(key.text)}{advice}")
    body = top.get("workflows")
    if body is None:
        # With other keys, the workflows may stand under a misspelled key: then no missing name can be judged.
        return None if top.entries else ()
    if isinstance(body, MapNode):
        report.problem(body.position, 'workflows: expected a list, found a map; begin each workflow with "- name:"')
        return None
    return () if is_absent(body) else read_list(report, body, "workflows")


def _refuse_duplicate(report: Report, name: ScalarNode, first: ScalarNode) -> None:
    place = f"{first.position.file}:{first.position.line}"
    if name.text == first.text:
        report.problem(name.position, f"workflow {quote(name.text)} was already defined in {place}")
    else:
        message = f"workflow {quote(name.text)} differs from {quote(first.text)} ({place}) only in capital letters"
        report.problem(name.position, message)


def _read_item(report: Report, node: Node) -> WorkflowSource | None:
    """One workflow; None only for an entry without a usable name."""
    body = read_map(report, node, "an entry of workflows")
    if body is None:
        return None
    fields = read_fields(report, body, "a workflow", known=_KNOWN, refused=UNSUPPORTED_KEYS)
    name = read_text(report, fields["name"].value, "name") if "name" in fields else None
    if "name" not in fields:
        report.problem(body.position, "a workflow has no name")
    checked = read_workflow_name(report, name) if name else None
    place = name or ScalarNode(
        position=body.position, text="the workflow", value="", plain=True, raw="", start=body.start, end=body.end
    )
    source = _read_fields(report, fields, place)
    return source if checked is not None else None


def _read_fields(report: Report, fields: Mapping[str, MapEntry], name: ScalarNode) -> WorkflowSource:
    values = {key: field.value for key, field in fields.items()}
    depends = DependsOn()
    if "depends-on" in fields:
        depends = read_depends(report, values["depends-on"], fields["depends-on"].key.text)
    folder = working_dir(report, fields)
    image = values["image"] if "image" in fields else python_image(report, fields)
    templates = WorkflowTemplates(
        image=image,
        artifacts=values.get("artifacts"),
        env=values.get("env"),
        resources=values.get("resources"),
        folder=folder,
    )
    commands = read_commands(report, fields, name)
    workflow = _workflow(report, fields, name=name, commands=commands, templates=templates, depends=depends)
    return WorkflowSource(workflow=workflow, name=name, commands=commands, templates=templates, depends=depends)


def _workflow(
    report: Report,
    fields: Mapping[str, MapEntry],
    *,
    name: ScalarNode,
    commands: tuple[ScalarNode, ...],
    templates: WorkflowTemplates,
    depends: DependsOn,
) -> Workflow:
    values = {key: field.value for key, field in fields.items()}
    limit, retry = values.get("max-duration"), values.get("retry")
    reuse = read_boolean(report, values["reuse"], "reuse") if "reuse" in values else True
    return Workflow(
        name=WorkflowName(name.text),
        commands=tuple(command.text for command in commands),
        position=name.position,
        help=_text(report, values, "help"),
        image=templates.image.text if isinstance(templates.image, ScalarNode) else None,
        include=None if depends.include is None else tuple(entry.text for entry in depends.include),
        depends_variables=None if depends.variables is None else tuple(entry.text for entry in depends.variables),
        depends_on=tuple(dependency for dependency, _ in depends.workflows),
        artifacts=artifact_texts(templates.artifacts),
        secrets=read_names(report, values["secrets"], "secrets") if "secrets" in values else (),
        retry=Retry() if retry is None or is_absent(retry) else read_retry(report, retry),
        max_duration=None if limit is None or is_absent(limit) else read_duration(report, limit, "max-duration"),
        ports=_ports(report, fields),
        reuse=reuse is not False,
        priority=_priority(report, values),
    )


def _priority(report: Report, values: Mapping[str, Node]) -> int:
    if "priority" not in values:
        return 0
    return read_integer(report, values["priority"], "priority", low=-100, high=100) or 0


def _text(report: Report, values: Mapping[str, Node], key: str) -> str:
    node = values.get(key)
    if node is None or is_absent(node):
        return ""
    text = read_text(report, node, key)
    return " ".join(text.text.split()) if text else ""


def _ports(report: Report, fields: Mapping[str, MapEntry]) -> tuple[int, ...]:
    if "ports" not in fields or is_absent(fields["ports"].value):
        return ()
    node = fields["ports"].value
    if isinstance(node, ScalarNode):
        message = "ports: a number of ports is not supported; list the port numbers, like [6006]"
        report.problem(node.position, message)
        return ()
    found = (
        read_integer(report, item, "an entry of ports", low=1, high=65535) for item in read_list(report, node, "ports")
    )
    return tuple(dict.fromkeys(port for port in found if port is not None))
