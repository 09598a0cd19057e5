"""The commands of a workflow: from `commands`, or from `provider`, `script` and `args` of later formats."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import replace

from dstack.project.paths import path_fault
from dstack.project.yaml.parser import ListNode, Node, ScalarNode
from dstack.project.yaml.report import (
    MapEntry,
    Report,
    describe,
    is_absent,
    quote,
    read_list,
    read_text,
    report_mismatch,
    suggest,
)

_PROVIDERS = ("bash", "docker", "python")
_UNSUPPORTED_PROVIDERS = (
    "torchrun",
    "code",
    "lab",
    "notebook",
    "streamlit",
    "gradio",
    "fastapi",
    "tensorboard",
    "curl",
)
# Paths stand without quotes in the commands made of them.
_SAFE_PATH = re.compile(r"[A-Za-z0-9._/@%+=:,-]+\Z")
_VERSION = re.compile(r"[23]\.[0-9]{1,2}(?:\.[0-9]{1,3})?\Z")


def read_commands(report: Report, fields: Mapping[str, MapEntry], place: ScalarNode) -> tuple[ScalarNode, ...]:
    """All commands in order: the working folder, requirements, setup, then `commands` or the provider's script.

    `place` stands for the workflow where something is missing.
    """
    provider = _read_provider(report, fields)
    begin = [*_working_dir(report, fields), *_requirements(report, fields)]
    for key in ("setup", "before-run"):
        if key in fields:
            begin += _read_list(report, fields[key].value, key)
    body = _read_list(report, fields["commands"].value, "commands") if "commands" in fields else []
    script = _script(report, fields, provider)
    if body and script:
        report.problem(fields["commands"].key.position, "commands and script are both given; keep one")
    if not body and not script and not _is_wrong(fields):
        wanted = "script" if provider == "python" else "commands"
        report.problem(place.position, f"{place.text}: {wanted} is missing")
    if provider == "docker" and "image" not in fields:
        report.problem(place.position, f"{place.text}: the provider docker needs an image")
    return (*begin, *body, *script)


def _is_wrong(fields: Mapping[str, MapEntry]) -> bool:
    """True when commands are there and were already complained of, or the provider is none of ours."""
    if "provider" in fields:
        node = fields["provider"].value
        if not isinstance(node, ScalarNode) or node.text not in _PROVIDERS:
            return True
    body = fields.get("commands") or fields.get("script")
    return (
        body is not None
        and not is_absent(body.value)
        and not (isinstance(body.value, ListNode) and not body.value.items)
    )


def _read_list(report: Report, node: Node, what: str) -> list[ScalarNode]:
    if is_absent(node):
        return []
    if isinstance(node, ScalarNode):
        report.problem(
            node.position, f'{what}: expected a list of commands, found {describe(node)}; begin it with "- "'
        )
        return []
    found: list[ScalarNode] = []
    for item in read_list(report, node, what):
        if isinstance(item, ScalarNode) and item.value is not None and item.text.strip():
            found.append(item)
        elif isinstance(item, ScalarNode):
            report.problem(item.position, f"{what}: a command is empty")
        else:
            advice = 'put a command that holds ": " in quotes or behind "|"'
            report.problem(item.position, f"{what}: expected a command, found {describe(item)}; {advice}")
    return found


def _read_provider(report: Report, fields: Mapping[str, MapEntry]) -> str | None:
    if "provider" not in fields:
        return None
    node = fields["provider"].value
    if not isinstance(node, ScalarNode) or "@" in node.text:
        report.problem(node.position, "provider: providers from another repository are not supported; write commands")
        return None
    if node.text in _UNSUPPORTED_PROVIDERS:
        report.problem(node.position, f"provider: {node.text} is not supported; write what it starts as commands")
        return None
    if node.text not in _PROVIDERS:
        known = ", ".join(_PROVIDERS)
        message = f"provider: expected one of {known}, found {quote(node.text)}{suggest(node.text, _PROVIDERS)}"
        report.problem(node.position, message)
        return None
    return node.text


def python_image(report: Report, fields: Mapping[str, MapEntry]) -> ScalarNode | None:
    """`python: 3.10` or `version: 3.10` names the image `python:3.10` where no image is given."""
    if "python" not in fields:
        return None
    node = fields["python"].value
    if not isinstance(node, ScalarNode) or not _VERSION.match(node.text):
        report_mismatch(report, node, fields["python"].key.text, "a version of Python, like 3.11")
        return None
    return replace(node, text=f"python:{node.text}", value=f"python:{node.text}", plain=False)


def working_dir(report: Report, fields: Mapping[str, MapEntry]) -> str:
    """The working folder of the commands, also the base of artifacts; "" for the project folder."""
    if "working-dir" not in fields:
        return ""
    node = _read_path(report, fields["working-dir"])
    return node.text if node else ""


def _working_dir(report: Report, fields: Mapping[str, MapEntry]) -> list[ScalarNode]:
    if "working-dir" not in fields:
        return []
    silent = Report()  # `working_dir` reports what is wrong with the folder
    node = _read_path(silent, fields["working-dir"])
    return [_command(node, f"cd -- {node.text}")] if node else []


def _requirements(report: Report, fields: Mapping[str, MapEntry]) -> list[ScalarNode]:
    if "requirements" not in fields:
        return []
    node = _read_path(report, fields["requirements"])
    return [_command(node, f"python3 -m pip install -r {node.text}")] if node else []


def _script(report: Report, fields: Mapping[str, MapEntry], provider: str | None) -> list[ScalarNode]:
    """`python3 FILE ARGS` of the provider python."""
    if "script" not in fields:
        if "args" in fields:
            report.problem(fields["args"].key.position, "args: there is no script that they belong to")
        return []
    if provider not in (None, "python"):
        report.problem(fields["script"].key.position, f"the provider {provider} runs commands, not a script")
        return []
    node = _read_path(report, fields["script"])
    if node is None:
        return []
    words = _arguments(report, fields["args"].value) if "args" in fields else []
    # A problem with a reference is shown at the word that holds the reference.
    anchor = next((word for word in words if "$" in word.text), node)
    return [_command(anchor, " ".join(("python3", node.text, *(word.text for word in words))))]


def _arguments(report: Report, node: Node) -> list[ScalarNode]:
    """The words of `args`: a text in the shell's own reading, each item of a list as a single word."""
    if is_absent(node):
        return []
    if isinstance(node, ScalarNode):
        return [node]
    found = (read_text(report, item, "an entry of args") for item in read_list(report, node, "args"))
    return [replace(item, text=_word(item.text)) for item in found if item is not None]


def _word(text: str) -> str:
    """A shell word with live references: `$variables_as_args` bare, the rest in double quotes."""
    if text == "$variables_as_args":
        return text
    if "$" not in text:
        return shlex.quote(text)
    escaped = re.sub(r'([\\"`])', r"\\\1", text)
    # Before anything but a name or `{{` a live `$` would begin another expansion, such as `$(`.
    return '"' + re.sub(r"\$(?!\{\{|\{?[A-Za-z_])", r"\\$", escaped) + '"'


def _read_path(report: Report, field: MapEntry) -> ScalarNode | None:
    node = read_text(report, field.value, field.key.text)
    if node is None:
        return None
    reason = path_fault(node.text)
    if reason is None and (not _SAFE_PATH.match(node.text) or node.text.startswith("-")):
        reason = "it holds a character that the shell reads; write it as a command"
    if reason:
        report.problem(node.position, f"{field.key.text} {quote(node.text)}: {reason}")
        return None
    return node


def _command(node: ScalarNode, text: str) -> ScalarNode:
    return replace(node, text=text, value=text, plain=False)
