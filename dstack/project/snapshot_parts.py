"""The files of one snapshot, and the parts of the snapshot for the results of workflows, by their `include` entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dstack.core.fingerprint import code_digest
from dstack.model import CodeFile
from dstack.project.paths import match_paths
from dstack.project.yaml.parser import ScalarNode
from dstack.project.yaml.report import Report, quote, suggest


@dataclass(frozen=True, slots=True, kw_only=True)
class CodePart:
    """Some files of a snapshot, and their digest for the fingerprint of a job."""

    files: tuple[CodeFile, ...]
    digest: str


class CodeParts:
    """The parts of one snapshot. Workflows with the same `include` share a part, made once."""

    def __init__(self, files: Sequence[CodeFile]) -> None:
        """`files` are all files of the snapshot below the project folder."""
        self._files = files
        self._paths = [file.path for file in files]
        self._matches: dict[str, frozenset[str]] = {}
        self._parts: dict[tuple[str, ...] | None, CodePart] = {}

    @property
    def parts(self) -> tuple[CodePart, ...]:
        """All parts so far, in order of their first use."""
        return tuple(self._parts.values())

    def check(self, report: Report, include: Sequence[ScalarNode] | None) -> None:
        """Report every entry without a matching file."""
        for entry in include or ():
            if not self._match(entry.text):
                advice = suggest(entry.text, self._paths)
                report.problem(entry.position, f"include {quote(entry.text)} matches no file of the project{advice}")

    def part(self, report: Report, include: Sequence[ScalarNode] | None) -> CodePart:
        """The part of these entries, checked; without `include`, all files except dstack's own."""
        self.check(report, include)
        key = None if include is None else tuple(entry.text for entry in include)
        if key not in self._parts:
            self._parts[key] = self._make(key)
        return self._parts[key]

    def _make(self, include: tuple[str, ...] | None) -> CodePart:
        if include is None:
            files = tuple(file for file in self._files if not file.path.startswith(".dstack/"))
        else:
            wanted = frozenset[str]().union(*(self._match(pattern) for pattern in include))
            files = tuple(file for file in self._files if file.path in wanted)
        return CodePart(files=files, digest=code_digest(files))

    def _match(self, pattern: str) -> frozenset[str]:
        if pattern not in self._matches:
            self._matches[pattern] = frozenset(match_paths(pattern, self._paths))
        return self._matches[pattern]
