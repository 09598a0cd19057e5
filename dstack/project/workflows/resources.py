"""The `resources:` of a workflow, in every form of the format's history."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dstack.model import Gpu, Resources
from dstack.project.quantities import read_size
from dstack.project.yaml.parser import MapNode, Node, ScalarNode
from dstack.project.yaml.report import (
    MapEntry,
    Report,
    describe,
    is_absent,
    quote,
    read_boolean,
    read_fields,
    read_integer,
    read_map,
    read_text,
)
from dstack.project.yaml.schema import CPU_KEYS, GPU_KEYS, RESOURCES_KEYS, spellings

_GPU_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}\Z")

_KEYS = spellings(RESOURCES_KEYS)
UNSUPPORTED_RESOURCES = {
    "local": "where a job runs is said by hosts.yaml, not here",
    "remote": "where a job runs is said by hosts.yaml, not here",
    "disk": "disk space cannot be asked for yet; leave it out",
}


def read_resources(report: Report, node: Node) -> Resources:
    """The `resources:` of a workflow, values already put in for variables."""
    body = None if is_absent(node) else read_map(report, node, "resources")
    if body is None:
        return Resources()
    named = [(key, value) for key, value in body.entries if key.text.lower().endswith("/gpu")]
    rest = tuple(entry for entry in body.entries if entry not in named)
    plain = MapNode(position=body.position, entries=rest, flow=body.flow, start=body.start, end=body.end)
    fields = read_fields(report, plain, "resources", known=_KEYS, refused=UNSUPPORTED_RESOURCES)
    gpu = _read_gpu(report, fields["gpu"].value) if "gpu" in fields else None
    for key, value in named:
        if gpu is not None or "gpu" in fields:
            report.problem(key.position, f"{key.text}: GPUs are asked for twice; keep one")
        gpu = _read_named_gpu(report, key, value)
    return Resources(
        cpu=_read_cpu(report, fields["cpu"].value) if "cpu" in fields else None,
        memory=_optional_size(report, fields, "memory"),
        gpu=gpu,
        shm_size=_optional_size(report, fields, "shm-size"),
        interruptible=_read_interruptible(report, fields),
    )


def _optional_size(report: Report, fields: Mapping[str, MapEntry], key: str) -> int | None:
    return read_size(report, fields[key].value, key) if key in fields else None


def _read_interruptible(report: Report, fields: Mapping[str, MapEntry]) -> bool:
    field = fields.get("interruptible")
    return bool(field and read_boolean(report, field.value, "interruptible"))


def _read_cpu(report: Report, node: Node) -> int | None:
    if isinstance(node, MapNode):
        fields = read_fields(report, node, "cpu", known=spellings(CPU_KEYS))
        if "count" not in fields:
            return None
        node = fields["count"].value
    return read_integer(report, _numeric(node), "cpu", low=1)


def _numeric(node: Node) -> Node:
    """A quoted whole number counts as a number: YAML's flow style needs quotes around a value in braces."""
    if isinstance(node, ScalarNode) and re.fullmatch(r"[0-9]{1,9}", node.text):
        return ScalarNode(
            position=node.position,
            text=node.text,
            value=int(node.text),
            plain=True,
            raw=node.raw,
            start=node.start,
            end=node.end,
        )
    return node


def _read_gpu(report: Report, node: Node) -> Gpu | None:
    if isinstance(node, ScalarNode):
        if isinstance(node.value, str) and not re.fullmatch(r"[0-9]{1,9}", node.text):
            found = describe(node)
            message = f"gpu: expected a number or a map, found {found}; name a GPU by {{count: 1, name: A100}}"
            report.problem(node.position, message)
            return None
        count = read_integer(report, _numeric(node), "gpu", low=0)
        return Gpu(count=count) if count else None
    body = read_map(report, node, "gpu")
    if body is None:
        return None
    fields = read_fields(report, body, "gpu", known=spellings(GPU_KEYS))
    count = read_integer(report, _numeric(fields["count"].value), "gpu count", low=0) if "count" in fields else 1
    name = _read_gpu_name(report, fields["name"].value) if "name" in fields else None
    memory = _optional_size(report, fields, "memory")
    return Gpu(count=count, name=name, memory=memory) if count else None


def _read_gpu_name(report: Report, node: Node) -> str | None:
    text = read_text(report, node, "gpu name")
    if text is None:
        return None
    if not _GPU_NAME.match(text.text):
        report.problem(text.position, f"gpu name: {quote(text.text)} is not the name of a GPU")
        return None
    return text.text


def _read_named_gpu(report: Report, key: ScalarNode, value: Node) -> Gpu | None:
    name = key.text[: -len("/gpu")]
    if not _GPU_NAME.match(name):
        report.problem(key.position, f"{quote(key.text)}: expected NAME/gpu, like v100/gpu")
        return None
    count = read_integer(report, _numeric(value), key.text, low=0)
    return Gpu(count=count, name=name) if count else None
