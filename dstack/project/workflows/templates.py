"""The parts of a workflow with values as text: image, artifacts, env, resources.

The templates are read again for every set of values, so a value that leads an artifact out of the project is refused
like a path in the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dstack.model import Resources
from dstack.project.names import read_environment_name, read_image_name
from dstack.project.paths import check_overlaps, read_artifact
from dstack.project.workflows.references import fill
from dstack.project.workflows.resources import read_resources
from dstack.project.workflows.variables import VariableScope
from dstack.project.yaml.parser import ListNode, MapNode, Node, ScalarNode
from dstack.project.yaml.report import (
    Report,
    describe,
    is_absent,
    quote,
    read_fields,
    read_list,
    read_text,
    report_mismatch,
)
from dstack.project.yaml.schema import ARTIFACT_KEYS, spellings

_MOUNT = "artifacts are copied when the job has ended, never mounted; leave mount out"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowTemplates:
    """The nodes of the file; `folder` is the working folder and base of artifacts, "" for the project folder."""

    image: Node | None = None
    artifacts: Node | None = None
    env: Node | None = None
    resources: Node | None = None
    folder: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilledTemplates:
    """The templates with values, checked."""

    image: str | None
    artifacts: tuple[str, ...]
    env: Mapping[str, str]
    env_from_caller: tuple[str, ...]
    resources: Resources


def fill_templates(report: Report, templates: WorkflowTemplates, scope: VariableScope) -> FilledTemplates:
    """Put the values of `scope` in and check the result; problems go to `report`."""
    env, from_caller = _read_env(report, templates.env, scope)
    resources = _fill_node(report, templates.resources, scope, "resources")
    return FilledTemplates(
        image=_read_image(report, templates.image, scope),
        artifacts=_read_artifacts(report, templates, scope),
        env=env,
        env_from_caller=from_caller,
        resources=read_resources(report, resources) if resources else Resources(),
    )


def _fill_node(report: Report, node: Node | None, scope: VariableScope, what: str) -> Node | None:
    """The node with values; None for no node, or after a wrong reference, to avoid further problems of the same
    cause."""
    if node is None or is_absent(node):
        return None
    known = len(report.problems)
    filled = fill(report, node, scope, what)
    return filled if len(report.problems) == known else None


def artifact_texts(node: Node | None) -> tuple[str, ...]:
    """The artifacts in the file, as far as readable."""
    items = node.items if isinstance(node, ListNode) else ()
    paths = (item.get("path") if isinstance(item, MapNode) else item for item in items)
    return tuple(path.text for path in paths if isinstance(path, ScalarNode))


def _read_image(report: Report, node: Node | None, scope: VariableScope) -> str | None:
    filled = _fill_node(report, node, scope, "image")
    text = read_text(report, filled, "image") if filled else None
    return read_image_name(report, text) if text else None


def _read_artifacts(report: Report, templates: WorkflowTemplates, scope: VariableScope) -> tuple[str, ...]:
    node = templates.artifacts
    if node is None or is_absent(node):
        return ()
    filled = fill(report, node, scope, "artifacts")
    found: list[tuple[str, ScalarNode]] = []
    for item in read_list(report, filled, "artifacts"):
        written = _artifact_path(report, item)
        path = read_artifact(report, written, templates.folder) if written else None
        if written and path is not None:
            found.append((path, written))
    check_overlaps(report, found)
    return tuple(path for path, _ in found)


def _artifact_path(report: Report, node: Node) -> ScalarNode | None:
    """A path, or `{path: …}`."""
    if not isinstance(node, MapNode):
        return read_text(report, node, "an entry of artifacts")
    mount = node.get("mount")
    if isinstance(mount, ScalarNode) and mount.value is True:
        report.problem(mount.position, f"mount: {_MOUNT}")
    fields = read_fields(report, node, "an entry of artifacts", known=spellings(ARTIFACT_KEYS))
    if "path" in fields:
        return read_text(report, fields["path"].value, "path")
    report.problem(node.position, "artifacts: path is missing")
    return None


def _read_env(report: Report, node: Node | None, scope: VariableScope) -> tuple[dict[str, str], tuple[str, ...]]:
    """`env` as a map, or as a list of NAME=VALUE and bare NAME (taken from the caller)."""
    if node is None or is_absent(node):
        return {}, ()
    if isinstance(node, MapNode):
        return _read_env_map(report, node, scope), ()
    if isinstance(node, ListNode):
        return _read_env_list(report, node, scope)
    report_mismatch(report, node, "env", "a map, or a list of NAME=VALUE")
    return {}, ()


def _read_env_map(report: Report, node: MapNode, scope: VariableScope) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in node.entries:
        name = read_environment_name(report, key, key.text)
        if not isinstance(value, ScalarNode):
            report.problem(value.position, f"env {key.text}: expected a text, found {describe(value)}")
        elif value.value is None:
            advice = f'write "" for an empty text, or env: [{key.text}] to take it from your own environment'
            report.problem(value.position, f"env {key.text} has no value; {advice}")
        elif name is not None:
            found[name] = _fill_env(report, value, scope, name)
            _note_shadow(report, key, name, scope)
    return found


def _read_env_list(report: Report, node: ListNode, scope: VariableScope) -> tuple[dict[str, str], tuple[str, ...]]:
    found: dict[str, str] = {}
    bare: list[str] = []
    for item in node.items:
        if isinstance(item, MapNode):
            report.problem(item.position, 'env: expected NAME=VALUE, found a map; write "=" or make env a map')
            continue
        text = read_text(report, item, "an entry of env")
        name = read_environment_name(report, text, text.text.partition("=")[0]) if text else None
        if text is None or name is None:
            continue
        if name in found or name in bare:
            report.problem(text.position, f"env: {name} is given twice")
            continue
        _note_shadow(report, text, name, scope)
        if "=" in text.text:
            found[name] = _fill_env(report, text, scope, name).partition("=")[2]
        else:
            bare.append(name)
    return found, tuple(bare)


def _fill_env(report: Report, node: ScalarNode, scope: VariableScope, name: str) -> str:
    filled = fill(report, node, scope, f"env {name}", lenient=True)
    return filled.text if isinstance(filled, ScalarNode) else ""


def _note_shadow(report: Report, node: ScalarNode, name: str, scope: VariableScope) -> None:
    """`env` wins over a variable of the same name; `${{ name }}` in a command then gives the value of `env`."""
    if name in scope.names.values():
        report.note(node.position, f"env {quote(name)} hides the variable of that name in the commands")


def read_names(report: Report, node: Node, what: str) -> tuple[str, ...]:
    """A list of names of environment variables, as `secrets:` is."""
    found: list[str] = []
    if is_absent(node):
        return ()
    for item in read_list(report, node, what):
        text = read_text(report, item, f"an entry of {what}")
        name = read_environment_name(report, text, text.text) if text else None
        if text and name in found:
            report.problem(text.position, f"{what}: {name} is given twice")
        elif name:
            found.append(name)
    return tuple(found)
