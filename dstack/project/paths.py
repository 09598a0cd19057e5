"""The user's paths: where an artifact, an include or a working folder may lie."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from dstack.project.yaml.parser import ScalarNode
from dstack.project.yaml.report import Report, quote

MAX_PATH_BYTES = 1024
"""Bytes of a path."""
MAX_PART_BYTES = 255
"""Bytes of a part of a path, the limit of the usual file systems."""
_GLOB = re.compile(r"[*?\[]")


def path_fault(path: str) -> str | None:
    """Why `path` is not a path inside the project; None for a path inside."""
    if not path.strip():
        return "it is empty"
    if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in path):
        return "it holds a control character"
    if path.startswith("/"):
        return "it is absolute; paths are relative to the project folder"
    if path.startswith("~"):
        return 'it begins with "~"; paths are relative to the project folder'
    parts = path.split("/")
    if ".." in parts:
        return 'it holds ".."; paths stay inside the project folder'
    if len(path.encode()) > MAX_PATH_BYTES or any(len(part.encode()) > MAX_PART_BYTES for part in parts):
        return f"it is longer than {MAX_PATH_BYTES} bytes, or a part of it than {MAX_PART_BYTES}"
    return None


def normalize(path: str) -> str:
    """A faultless path without `.`, doubled or trailing slashes; "" is the project folder itself."""
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def read_artifact(report: Report, node: ScalarNode, inside: str = "") -> str | None:
    """The path of an artifact relative to the project folder, written relative to the folder `inside`."""
    path = normalize(f"{inside}/{node.text}")
    # The written text first, because a leading `/` is gone in the joined path; the joined path again, for its length.
    reason = path_fault(node.text) or _artifact_fault(path) or path_fault(path)
    if reason:
        report.problem(node.position, f"artifact {quote(node.text)}: {reason}")
        return None
    return path


def _artifact_fault(path: str) -> str | None:
    first, *others = path.lower().split("/")
    if not path:
        return "the project folder as a whole cannot be an artifact; name a folder in it"
    # Compared in small letters: some file systems take `.GIT` and `.git` for the same folder.
    if ".git" in (first, *others) or first == ".dstack":
        return "nothing under .git or .dstack can be an artifact"
    if _GLOB.search(path):
        return "an artifact is a file or a folder, not a pattern; name the folder"
    return None


def check_overlaps(report: Report, artifacts: Iterable[tuple[str, ScalarNode]]) -> None:
    """Report every artifact of a workflow that equals another artifact, or lies inside another."""
    seen: dict[str, ScalarNode] = {}
    above: dict[str, str] = {}
    for path, node in artifacts:
        parts = path.split("/")
        folders = ["/".join(parts[:count]) for count in range(1, len(parts))]
        other = above.get(path) or next((folder for folder in folders if folder in seen), None)
        if path in seen:
            line = seen[path].position.line
            report.problem(node.position, f"artifact {quote(path)} was already named in line {line}")
        elif other is not None:
            line = seen[other].position.line
            message = f"artifacts {quote(other)} (line {line}) and {quote(path)} lie in one another"
            report.problem(node.position, message)
        seen.setdefault(path, node)
        above.update(dict.fromkeys(folders, path))


def match_paths(pattern: str, paths: Sequence[str]) -> list[str]:
    """The members of `paths` for an include entry: the file of this name, all files below the folder of this name, or
    all matches of the pattern and all files below them.

    `*`, `?` and `[…]` match within one part of a path, `**` over any number of parts.
    """
    wanted = normalize(pattern)
    if not wanted:
        return list(paths)
    # `data[1].csv` may be the name of a file: an exact match wins over the pattern.
    exact = [path for path in paths if path == wanted or path.startswith(f"{wanted}/")]
    if exact or not _GLOB.search(wanted):
        return exact
    # DOTALL, because the name of a file may hold a newline.
    compiled = re.compile(_translate(wanted) + r"(?:/.*)?\Z", re.DOTALL)
    return [path for path in paths if compiled.match(path)]


def _translate(pattern: str) -> str:
    pieces: list[str] = []
    at = 0
    while at < len(pattern):
        rest = pattern[at:]
        # In a glob a `]` right behind `[` or `[!` stands for itself.
        group = re.match(r"\[!?\]?[^\]/]*\]", rest)
        if rest.startswith("**/"):
            piece, width = "(?:[^/]+/)*", 3
        elif rest.startswith("**"):
            piece, width = ".*", 2
        elif rest[0] == "*":
            piece, width = "[^/]*", 1
        elif rest[0] == "?":
            piece, width = "[^/]", 1
        elif group:
            piece, width = _translate_set(group.group()), group.end()
        else:
            piece, width = re.escape(rest[0]), 1
        pieces.append(piece)
        at += width
    return "".join(pieces)


def _translate_set(group: str) -> str:
    negated = group[1] == "!"
    # `re` gives some characters of a set a meaning of its own; in a glob they stand for themselves.
    body = group[2 if negated else 1 : -1].replace("\\", r"\\").replace("[", r"\[").replace("^", r"\^")
    body = body.replace("]", r"\]").replace("&", r"\&").replace("~", r"\~").replace("|", r"\|")
    # A range like `z-a` matches nothing in a glob; `re` refuses the pattern.
    body = re.sub(r"(.)-(.)", lambda found: found.group() if found[1] <= found[2] else "", body)
    # `(?!/)`, because a negated set would match the `/` between parts; `(?!)` matches nothing, like an empty set.
    return f"(?!/)[{'^' if negated else ''}{body}]" if body else "(?!)"
