"""What Markdown files of the repository point at: relative links with their headings, and paths of the source."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

_FENCE = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.DOTALL)
_INLINE = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^\s<>()]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?(\S+?)>?\s*$", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6} +(.+?)\s*#*$", re.MULTILINE)
_SOURCE_PATH = re.compile(r"`((?:dstack|tests)/[\w./-]+)`")
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//")


def markdown_files(root: Path) -> list[Path]:
    """Every *.md that git tracks or would, relative to `root`."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "*.md"]
    listed = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split("\0")
    return [Path(name) for name in sorted(set(listed)) if name and (root / name).is_file()]


def broken_links(root: Path, name: Path) -> list[str]:
    """One sentence for each relative link of `name` (below `root`) that points nowhere."""
    text = (root / name).read_text(encoding="utf-8")
    prose = _blank(_CODE, _blank(_FENCE, text))
    found = []
    for link in sorted([*_INLINE.finditer(prose), *_REFERENCE.finditer(prose)], key=lambda match: match.start()):
        reason = _fault(root, name, link.group(1))
        if reason:
            line = prose.count("\n", 0, link.start()) + 1
            found.append(f"{name}:{line}: {link.group(1)}: {reason}")
    return found


def missing_paths(root: Path, name: Path) -> list[str]:
    """One sentence for each path below `dstack/` or `tests/` that stands in `name` as code and does not exist."""
    text = (root / name).read_text(encoding="utf-8")
    return [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match[1]}: there is no such file or folder"
        for match in _SOURCE_PATH.finditer(text)
        if not (root / match[1]).exists()
    ]


def _fault(root: Path, name: Path, link: str) -> str | None:
    if _ABSOLUTE.match(link):
        return None
    path, _, anchor = unquote(link).partition("#")
    if path.startswith("/"):
        return "a link within the repository is relative"
    target = ((root / name).parent / path).resolve() if path else (root / name).resolve()
    if not target.is_relative_to(root.resolve()):
        return "points out of the repository"
    if not target.exists():
        return "there is no such file"
    if anchor and target.suffix == ".md" and anchor not in anchors(target.read_text(encoding="utf-8")):
        return "there is no such heading"
    return None


def anchors(text: str) -> set[str]:
    """The anchors of the headings, as forges make them: lower case, spaces to "-", punctuation left out."""
    found: dict[str, int] = {}
    for heading in _HEADING.finditer(_blank(_FENCE, text)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.group(1)).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        count = found[slug] = found.get(slug, -1) + 1
        if count:
            found[f"{slug}-{count}"] = 0
    return set(found)


def _blank(pattern: re.Pattern[str], text: str) -> str:
    """`text` with what matches replaced by blanks, line breaks kept so that line numbers stay."""
    return pattern.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)
