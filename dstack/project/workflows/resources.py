"""What a workflow asks of a host, in every form that was ever in use; sizes, durations and retries."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dstack.core.lifecycle import TRIED_ENDS
from dstack.model import Gpu, Resources, Retry
from dstack.project.yaml.parser import ListNode, MapNode, Node, ScalarNode
from dstack.project.yaml.report import (
    Field,
    Report,
    absent,
    described,
    expected,
    nearest,
    quoted,
    read_boolean,
    read_fields,
    read_integer,
    read_list,
    read_map,
    read_text,
)
from dstack.project.yaml.schema import CPU, GPU, RESOURCES, RETRY, spellings

_DECIMAL = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([KMGT])(i?)B?\Z", re.IGNORECASE)
_DURATION = re.compile(r"(?:([0-9]{1,6})d)?(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,8})s)?\Z")
_SECONDS = (86400, 3600, 60, 1)
_GPU_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}\Z")

_KEYS = spellings(RESOURCES)
REFUSED = {
    "local": "where a job runs is said by hosts.yaml, not here",
    "remote": "where a job runs is said by hosts.yaml, not here",
    "disk": "disk space cannot be asked for yet; leave it out",
}
RETRIED = tuple(map(str, TRIED_ENDS))
"""Ends of attempts after which `retry` may ask for another attempt."""


def size(text: str) -> int | None:
    """Bytes of a size: `16GB` and `16G` are 16 × 10⁹, `16GiB` and `16Gi` are 16 × 2³⁰; None when it is no size."""
    found = _SIZE.match(text.strip())
    if not found:
        return None
    unit = (_BINARY if found[3] else _DECIMAL)[found[2].upper()]
    return int(float(found[1]) * unit) if "." in found[1] else int(found[1]) * unit


def duration(text: str) -> int | None:
    """Seconds of a duration like `90s`, `30m`, `6h`, `1d` or `1h30m`; None when it is none."""
    found = _DURATION.match(text.strip())
    if not found or not any(found.groups()):
        return None
    return sum(int(number or 0) * unit for number, unit in zip(found.groups(), _SECONDS, strict=True))


def read_size(report: Report, node: Node, what: str) -> int | None:
    found = size(node.text) if isinstance(node, ScalarNode) else None
    if not found:
        expected(report, node, what, "a size with its unit, like 16GB or 512MiB")
        return None
    return found


def read_duration(report: Report, node: Node, what: str) -> int | None:
    found = duration(node.text) if isinstance(node, ScalarNode) else None
    if not found:
        expected(report, node, what, "a duration with its unit, like 90s, 30m, 6h or 1d")
        return None
    return found


def read_resources(report: Report, node: Node) -> Resources:
    """The `resources:` of a workflow, values already put in for variables."""
    body = None if absent(node) else read_map(report, node, "resources")
    if body is None:
        return Resources()
    named = [(key, value) for key, value in body.entries if key.text.lower().endswith("/gpu")]
    rest = tuple(entry for entry in body.entries if entry not in named)
    plain = MapNode(position=body.position, entries=rest, flow=body.flow, start=body.start, end=body.end)
    fields = read_fields(report, plain, "resources", known=_KEYS, refused=REFUSED)
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


def _optional_size(report: Report, fields: Mapping[str, Field], key: str) -> int | None:
    return read_size(report, fields[key].value, key) if key in fields else None


def _read_interruptible(report: Report, fields: Mapping[str, Field]) -> bool:
    field = fields.get("interruptible")
    return bool(field and read_boolean(report, field.value, "interruptible"))


def _read_cpu(report: Report, node: Node) -> int | None:
    if isinstance(node, MapNode):
        fields = read_fields(report, node, "cpu", known=spellings(CPU))
        if "count" not in fields:
            return None
        node = fields["count"].value
    return read_integer(report, _numeric(node), "cpu", low=1)


def _numeric(node: Node) -> Node:
    """A quoted whole number counts as one: a value in braces must be quoted in YAML's flow style."""
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
            found = described(node)
            message = f"gpu: expected a number or a map, found {found}; name a GPU by {{count: 1, name: A100}}"
            report.problem(node.position, message)
            return None
        count = read_integer(report, _numeric(node), "gpu", low=0)
        return Gpu(count=count) if count else None
    body = read_map(report, node, "gpu")
    if body is None:
        return None
    fields = read_fields(report, body, "gpu", known=spellings(GPU))
    count = read_integer(report, _numeric(fields["count"].value), "gpu count", low=0) if "count" in fields else 1
    name = _read_gpu_name(report, fields["name"].value) if "name" in fields else None
    memory = _optional_size(report, fields, "memory")
    return Gpu(count=count, name=name, memory=memory) if count else None


def _read_gpu_name(report: Report, node: Node) -> str | None:
    text = read_text(report, node, "gpu name")
    if text is None:
        return None
    if not _GPU_NAME.match(text.text):
        report.problem(text.position, f"gpu name: {quoted(text.text)} is not the name of a GPU")
        return None
    return text.text


def _read_named_gpu(report: Report, key: ScalarNode, value: Node) -> Gpu | None:
    name = key.text[: -len("/gpu")]
    if not _GPU_NAME.match(name):
        report.problem(key.position, f"{quoted(key.text)}: expected NAME/gpu, like v100/gpu")
        return None
    count = read_integer(report, _numeric(value), key.text, low=0)
    return Gpu(count=count, name=name) if count else None


def read_retry(report: Report, node: Node) -> Retry:
    """`retry:` as a number of attempts or as `{attempts, on}`; without `on`, after every kind of end but success."""
    if isinstance(node, ScalarNode):
        count = read_integer(report, node, "retry", low=1, high=100)
        return Retry(attempts=count or 1, on=RETRIED if (count or 1) > 1 else ())
    body = read_map(report, node, "retry")
    if body is None:
        return Retry()
    fields = read_fields(report, body, "retry", known=spellings(RETRY))
    attempts = 1
    if "attempts" in fields:
        attempts = read_integer(report, fields["attempts"].value, "attempts", low=1, high=100) or 1
    else:
        report.problem(body.position, "retry: attempts is missing")
    on = _read_reasons(report, fields["on"].value) if "on" in fields else RETRIED
    return Retry(attempts=attempts, on=on if attempts > 1 else ())


def _read_reasons(report: Report, node: Node) -> tuple[str, ...]:
    items = read_list(report, node, "on") if isinstance(node, ListNode) else (node,)
    found: list[str] = []
    for item in items:
        text = read_text(report, item, "an entry of on")
        if text is None:
            continue
        if text.text in RETRIED:
            found.append(text.text)
        else:
            known = ", ".join(RETRIED)
            message = f"on: expected one of {known}, found {quoted(text.text)}{nearest(text.text, RETRIED)}"
            report.problem(text.position, message)
    return tuple(dict.fromkeys(found))
