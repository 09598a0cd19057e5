"""The names that users may give: they become command-line words, parts of bucket keys, and file names."""

from __future__ import annotations

import re

from dstack.core.format.keys import ALL_WORKFLOWS
from dstack.project.yaml.parser import ScalarNode
from dstack.project.yaml.report import Report, quote

_WORKFLOW = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}\Z")
_ENVIRONMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
# Never a leading `-`: docker would take the name for an option.
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,254}\Z")
# `global` is a section of variables.yaml, ALL_WORKFLOWS the key of a stop request for a whole run.
_TAKEN = frozenset(("global", ALL_WORKFLOWS))


def read_workflow_name(report: Report, node: ScalarNode) -> str | None:
    if node.text.lower() in _TAKEN:
        report.problem(node.position, f"a workflow cannot be called {quote(node.text)}: dstack uses that name itself")
        return None
    if not _WORKFLOW.match(node.text):
        wanted = 'a letter or digit, then letters, digits, "-", "_" or ".", at most 64 in all'
        report.problem(node.position, f"{quote(node.text)} cannot name a workflow: {wanted}")
        return None
    return node.text


def read_tag(report: Report, node: ScalarNode, text: str, what: str) -> str | None:
    """The name of a tag or a run."""
    if "/" in text:
        message = f"{what} {quote(text)}: results of another project cannot be an input"
        report.problem(node.position, message)
        return None
    if not _TAG.match(text):
        report.problem(node.position, f"{quote(text)} cannot name a {what}")
        return None
    return text


def read_environment_name(report: Report, node: ScalarNode, text: str) -> str | None:
    fault = environment_name_fault(text)
    if fault:
        report.problem(node.position, fault)
        return None
    return text


def environment_name_fault(text: str) -> str:
    """Why a text cannot name a variable of a job's environment; empty for a possible name."""
    if not _ENVIRONMENT.match(text):
        wanted = 'letters, digits and "_", not beginning with a digit'
        return f"{quote(text)} cannot name an environment variable: {wanted}"
    if text.lower() in ("run_name", "job_id") or text.upper().startswith("DSTACK_"):
        return f"{text} is given by dstack itself"
    return ""


def read_image_name(report: Report, node: ScalarNode) -> str | None:
    if not _IMAGE.match(node.text):
        report.problem(node.position, f"image: {quote(node.text)} is not the name of a Docker image")
        return None
    return node.text
