"""Typed access to nodes; collects all problems instead of raising at the first."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dstack.errors import Problem
from dstack.model import Position
from dstack.project.yaml.parser import ListNode, MapNode, Node, ScalarNode, YamlDocument

MAX_SUGGESTION_CANDIDATES = 300
"""The largest number of names to compare for "did you mean"; more would take seconds in a large file."""


@dataclass(slots=True)
class Report:
    """Faults (`problems`) and advice (`notes`), in order of discovery."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)

    def problem(self, place: Position, message: str) -> None:
        self.problems.append(_at(place, message))

    def note(self, place: Position, message: str) -> None:
        self.notes.append(_at(place, message))

    def take(self, loaded: YamlDocument) -> Node | None:
        """The root of a document, with its problems added; None without a root."""
        self.problems.extend(loaded.problems)
        return loaded.root


@dataclass(frozen=True, slots=True, kw_only=True)
class MapEntry:
    """A key of a map with its value."""

    key: ScalarNode
    value: Node


def _at(place: Position, message: str) -> Problem:
    return Problem(file=place.file, line=place.line, column=place.column, message=message)


def quote(text: str) -> str:
    """A text of the user's in quotes, in a line of at most 80 characters, safe to show."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return f'"{safe[:77]}..."' if len(safe) > 80 else f'"{safe}"'


def suggest(name: str, known: Iterable[str]) -> str:
    """` (did you mean "x"?)` for the known name most like `name`, or nothing."""
    begin = name[:1].lower()
    names = list(known)
    if len(names) > MAX_SUGGESTION_CANDIDATES:
        names = [candidate for candidate in names if candidate[:1].lower() == begin][:MAX_SUGGESTION_CANDIDATES]
    candidates = {candidate.lower().replace("_", "-"): candidate for candidate in names}
    found = difflib.get_close_matches(name.lower().replace("_", "-"), list(candidates), n=1, cutoff=0.6)
    return f" (did you mean {quote(candidates[found[0]])}?)" if found else ""


def describe(node: Node) -> str:
    """A node in words, for "expected …, found …"."""
    if isinstance(node, ListNode):
        return "a list"
    if isinstance(node, MapNode):
        return "a map"
    if node.value is None:
        return "nothing"
    if isinstance(node.value, str):
        return f"the text {quote(node.text)}"
    return node.text if isinstance(node.value, bool) else f"the number {node.text}"


def report_mismatch(report: Report, node: Node, what: str, wanted: str) -> None:
    report.problem(node.position, f"{what}: expected {wanted}, found {describe(node)}")


def is_absent(node: Node | None) -> bool:
    """True for no node and for an empty value (`key:` with nothing behind it)."""
    return node is None or (isinstance(node, ScalarNode) and node.value is None)


def read_map(report: Report, node: Node, what: str) -> MapNode | None:
    if isinstance(node, MapNode):
        return node
    report_mismatch(report, node, what, "a map")
    return None


def read_list(report: Report, node: Node, what: str) -> tuple[Node, ...]:
    """The items of a list; nothing, and a problem, for any other node."""
    if isinstance(node, ListNode):
        return node.items
    report_mismatch(report, node, what, "a list")
    return ()


def read_text(report: Report, node: Node, what: str) -> ScalarNode | None:
    """A scalar as the text in the file; numbers and booleans are allowed, an empty value is not."""
    if isinstance(node, ScalarNode) and node.value is not None:
        return node
    report_mismatch(report, node, what, "a text")
    return None


def read_texts(report: Report, node: Node, what: str) -> tuple[ScalarNode, ...]:
    """The items of a list of texts."""
    found = (read_text(report, item, f"an entry of {what}") for item in read_list(report, node, what))
    return tuple(item for item in found if item is not None)


def read_integer(report: Report, node: Node, what: str, *, low: int, high: int = 2**31 - 1) -> int | None:
    value = node.value if isinstance(node, ScalarNode) else None
    # A bool is an int in Python.
    if isinstance(value, bool) or not isinstance(value, int):
        report_mismatch(report, node, what, "a whole number")
        return None
    if not low <= value <= high:
        report.problem(node.position, f"{what}: expected a number from {low} to {high}, found {value}")
        return None
    return value


def read_boolean(report: Report, node: Node, what: str) -> bool | None:
    if isinstance(node, ScalarNode) and isinstance(node.value, bool):
        return node.value
    report_mismatch(report, node, what, "true or false")
    return None


def read_fields(
    report: Report, node: MapNode, what: str, *, known: Mapping[str, str], refused: Mapping[str, str] | None = None
) -> dict[str, MapEntry]:
    """The entries of a map by their canonical key.

    `known` maps each spelling (with `-`; `_` counts as the same) to its canonical key, `refused` maps known but
    unsupported keys to the reason. Unknown keys, and two spellings of one key, are problems.
    """
    found: dict[str, MapEntry] = {}
    for key, value in node.entries:
        spelled = key.text.replace("_", "-")
        canonical = known.get(spelled)
        if refused and spelled in refused:
            report.problem(key.position, f"{key.text}: {refused[spelled]}")
        elif canonical is None:
            report.problem(key.position, f"unknown key {quote(key.text)} in {what}{suggest(spelled, known)}")
        elif canonical in found:
            first = found[canonical].key
            message = f"{key.text} says again what {first.text} said in line {first.position.line}"
            report.problem(key.position, message)
        else:
            found[canonical] = MapEntry(key=key, value=value)
    return found
