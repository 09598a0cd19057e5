"""Sizes and durations with units, in the user's writing."""

from __future__ import annotations

import re

from dstack.project.yaml.parser import Node, ScalarNode
from dstack.project.yaml.report import Report, report_mismatch

_DECIMAL = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([KMGT])(i?)B?\Z", re.IGNORECASE)
_DURATION = re.compile(r"(?:([0-9]{1,6})d)?(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,8})s)?\Z")
_SECONDS = (86400, 3600, 60, 1)


def parse_size(text: str) -> int | None:
    """Bytes of a size: `16GB` and `16G` are 16 × 10⁹, `16GiB` and `16Gi` are 16 × 2³⁰; None for any other text."""
    found = _SIZE.match(text.strip())
    if not found:
        return None
    unit = (_BINARY if found[3] else _DECIMAL)[found[2].upper()]
    # A whole number never passes through a float, which is exact only up to 2^53.
    return int(float(found[1]) * unit) if "." in found[1] else int(found[1]) * unit


def parse_duration(text: str) -> int | None:
    """Seconds of a duration like `90s`, `30m`, `6h`, `1d` or `1h30m`; None for any other text."""
    found = _DURATION.match(text.strip())
    # Every part of the pattern is optional, so that the pattern matches the empty text too.
    if not found or not any(found.groups()):
        return None
    return sum(int(number or 0) * unit for number, unit in zip(found.groups(), _SECONDS, strict=True))


def read_size(report: Report, node: Node, what: str) -> int | None:
    found = parse_size(node.text) if isinstance(node, ScalarNode) else None
    if not found:
        report_mismatch(report, node, what, "a size with its unit, like 16GB or 512MiB")
        return None
    return found


def read_duration(report: Report, node: Node, what: str) -> int | None:
    found = parse_duration(node.text) if isinstance(node, ScalarNode) else None
    if not found:
        report_mismatch(report, node, what, "a duration with its unit, like 90s, 30m, 6h or 1d")
        return None
    return found
