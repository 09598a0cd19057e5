"""`depends-on` in every form: the map of the first manual, the list of later ones, `deps` and `dependencies`."""

from __future__ import annotations

from dataclasses import dataclass

from dstack.model import Dependency, Position, RunName, WorkflowName
from dstack.project.names import read_tag, read_workflow_name
from dstack.project.paths import path_fault
from dstack.project.yaml.parser import ListNode, MapNode, Node, ScalarNode
from dstack.project.yaml.report import (
    Report,
    is_absent,
    quote,
    read_fields,
    read_list,
    read_map,
    read_text,
    read_texts,
    report_mismatch,
)
from dstack.project.yaml.schema import DEPENDENCY_KEYS, DEPENDS_KEYS, DEPENDS_REPO_KEYS, spellings

_KEYS = spellings(DEPENDS_KEYS)
_ENTRY = spellings(DEPENDENCY_KEYS)
_MOUNT = "inputs are copied, never mounted; leave mount out"


@dataclass(frozen=True, slots=True, kw_only=True)
class DependsOn:
    """The dependencies of a workflow. `include` and `variables` are None for the default, everything."""

    workflows: tuple[tuple[Dependency, Position], ...] = ()
    include: tuple[ScalarNode, ...] | None = None
    variables: tuple[ScalarNode, ...] | None = None


def read_depends(report: Report, node: Node, what: str) -> DependsOn:
    """The value of `depends-on`; `what` is the key in the user's spelling."""
    if is_absent(node):
        return DependsOn()
    if isinstance(node, ListNode):
        return DependsOn(workflows=_read_entries(report, node, what))
    if not isinstance(node, MapNode):
        report_mismatch(report, node, what, "a list of workflows, or a map of repo, variables and workflows")
        return DependsOn()
    fields = read_fields(report, node, what, known=_KEYS)
    workflows = _read_entries(report, fields["workflows"].value, "workflows") if "workflows" in fields else ()
    variables = read_texts(report, fields["variables"].value, "variables") if "variables" in fields else None
    include = _read_repo(report, fields["repo"].value) if "repo" in fields else None
    return DependsOn(workflows=workflows, include=include, variables=variables)


def _read_repo(report: Report, node: Node) -> tuple[ScalarNode, ...] | None:
    if is_absent(node):
        return None
    body = read_map(report, node, "repo")
    if body is None:
        return None
    fields = read_fields(report, body, "repo", known=spellings(DEPENDS_REPO_KEYS))
    if "include" not in fields:
        return None
    found: list[ScalarNode] = []
    for entry in read_texts(report, fields["include"].value, "include"):
        reason = path_fault(entry.text)
        if reason:
            report.problem(entry.position, f"include {quote(entry.text)}: {reason}")
        else:
            found.append(entry)
    return tuple(found)


def _read_entries(report: Report, node: Node, what: str) -> tuple[tuple[Dependency, Position], ...]:
    found: dict[Dependency, Position] = {}
    if is_absent(node):
        return ()
    for item in read_list(report, node, what):
        dependency = _read_map_entry(report, item) if isinstance(item, MapNode) else _read_entry(report, item, what)
        if dependency is None:
            continue
        if dependency in found:
            report.problem(item.position, f"{what}: this was already named in line {found[dependency].line}")
        found.setdefault(dependency, item.position)
    return tuple(found.items())


def _read_entry(report: Report, node: Node, what: str) -> Dependency | None:
    text = read_text(report, node, f"an entry of {what}")
    if text is None:
        return None
    name, colon, tag = text.text.partition(":")
    workflow = WorkflowName(name)
    if (name or not colon) and _is_foreign(report, text, name):
        return None
    if not colon:
        return Dependency(workflow=workflow) if read_workflow_name(report, text) else None
    checked = read_tag(report, text, tag, "tag")
    return Dependency(workflow=workflow, tag=checked) if checked else None


def _is_foreign(report: Report, node: ScalarNode, name: str) -> bool:
    if "/" in name:
        report.problem(node.position, f"{quote(node.text)}: a workflow of another project cannot be an input")
        return True
    return False


def _read_map_entry(report: Report, node: MapNode) -> Dependency | None:
    """`{workflow: w}`, `{tag: t}`, `{run: r}`; a workflow beside a tag or run picks the results of this workflow."""
    if len(node.entries) == 1:
        key, value = node.entries[0]
        # YAML reads `prepare: v1` as a map, where the tag `prepare:v1` was meant.
        if key.text not in _ENTRY and key.text != "mount" and isinstance(value, ScalarNode):
            meant = f"{key.text}:{value.text}"
            report.problem(
                key.position, f"expected workflow, tag or run; for a tag write {quote(meant)} without a space"
            )
            return None
    kept = tuple((key, value) for key, value in node.entries if key.text != "mount")
    for key, value in node.entries:
        if key.text == "mount" and not (isinstance(value, ScalarNode) and value.value is False):
            report.problem(key.position, f"mount: {_MOUNT}")
    rest = MapNode(position=node.position, entries=kept, flow=node.flow, start=node.start, end=node.end)
    fields = read_fields(report, rest, "an entry of depends-on", known=_ENTRY)
    texts = {name: read_text(report, field.value, name) for name, field in fields.items()}
    if not fields or None in texts.values():
        if not fields:
            report.problem(node.position, "expected workflow, tag or run")
        return None
    return _join(report, node, {name: text for name, text in texts.items() if text is not None})


def _join(report: Report, node: MapNode, texts: dict[str, ScalarNode]) -> Dependency | None:
    if "tag" in texts and "run" in texts:
        report.problem(node.position, "an input is of a tag or of a run, not of both")
        return None
    workflow = ""
    if "workflow" in texts:
        named = texts["workflow"]
        if _is_foreign(report, named, named.text):
            return None
        workflow = read_workflow_name(report, named) or ""
        if not workflow:
            return None
    for kind in ("tag", "run"):
        if kind in texts and read_tag(report, texts[kind], texts[kind].text, kind) is None:
            return None
    return Dependency(
        workflow=WorkflowName(workflow),
        tag=texts["tag"].text if "tag" in texts else None,
        run=RunName(texts["run"].text) if "run" in texts else None,
    )
