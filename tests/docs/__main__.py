"""`python -m tests.docs [--write]`.

Without an argument: fails with a diff when a generated page is not what the code says, and when a relative link or a
path of the source in any Markdown file of the repository points nowhere. With `--write` the pages are written first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from difflib import unified_diff
from pathlib import Path

from tests.docs.cli import cli_page
from tests.docs.configuration import configuration_page
from tests.docs.exits import exits_page
from tests.docs.jsonpage import json_page
from tests.docs.links import broken_links, markdown_files, missing_paths
from tests.docs.modules import modules_page
from tests.support.checkout import ROOT

PAGES: Mapping[str, Callable[[], str]] = {
    "docs/reference/cli.md": cli_page,
    "docs/reference/configuration.md": configuration_page,
    "docs/reference/exit-codes.md": exits_page,
    "docs/reference/json.md": json_page,
    "docs/reference/modules.md": modules_page,
}
WRITE = "--write"
EXAMPLES = "docs/guides"
"""Names files that a reader will add."""


def drift(root: Path, pages: Mapping[str, str]) -> str:
    """The difference between the pages below `root` and what they have to be; empty for none."""
    pieces = []
    for name, wanted in pages.items():
        path = root / name
        found = path.read_text(encoding="utf-8") if path.exists() else ""
        lines = unified_diff(
            found.splitlines(keepends=True), wanted.splitlines(keepends=True), fromfile=name, tofile="the code says"
        )
        pieces.append("".join(lines))
    return "".join(pieces)


def write(root: Path, pages: Mapping[str, str]) -> None:
    for name, text in pages.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def main(arguments: list[str]) -> int:
    if set(arguments) - {WRITE}:
        print(f"usage: python -m tests.docs [{WRITE}]", file=sys.stderr)
        return 2
    pages = {name: make() for name, make in PAGES.items()}
    if WRITE in arguments:
        write(ROOT, pages)
    difference = drift(ROOT, pages)
    if difference:
        print(f"{difference}\nthe pages have drifted from the code: python -m tests.docs {WRITE}")
    files = markdown_files(ROOT)
    broken = [fault for name in files for fault in broken_links(ROOT, name)]
    broken += [fault for name in files if not name.is_relative_to(EXAMPLES) for fault in missing_paths(ROOT, name)]
    if broken:
        print("\n".join(broken))
    if difference or broken:
        return 1
    print(f"docs: {len(pages)} pages are what the code says, links of {len(files)} files are whole")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
