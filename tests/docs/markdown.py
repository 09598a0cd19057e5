"""The few forms of Markdown that the pages are made of."""

from __future__ import annotations

from collections.abc import Sequence

NOTICE = "<!-- Generated from the code by `python -m tests.docs --write`; edits are lost. -->"


def page(title: str, *blocks: str) -> str:
    """A whole page."""
    return "\n\n".join((NOTICE, f"# {title}", *blocks)) + "\n"


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def fenced(text: str, language: str = "text") -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def code(text: str) -> str:
    return f"`{text}`"
